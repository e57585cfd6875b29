use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn global_options_may_stand_before_or_after_the_subcommand() {
    for arguments in [["layermesh", "--json", "status"], ["layermesh", "status", "--json"]] {
        assert!(Cli::try_parse_from(arguments).unwrap().global.json);
    }
    assert!(Cli::try_parse_from(["layermesh"]).is_err());
    assert!(Cli::try_parse_from(["layermesh", "pull"]).is_err());
    assert!(Cli::try_parse_from(["layermesh", "run", "--no-such-flag"]).is_err());
}
