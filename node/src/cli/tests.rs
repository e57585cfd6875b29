use clap::{CommandFactory as _, error::ErrorKind};

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

/// What stands in code of a page and begins with the program's name, up to what a shell would take.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    let program = |code: &str| {
        let code = code.trim_start().trim_start_matches("$ ").trim_start_matches("sudo ");
        let end = code.find(['#', '|', '>', '<', ';', '…']).unwrap_or(code.len());
        let code = code.get(..end).unwrap_or(code).trim();
        (code == "layermesh" || code.starts_with("layermesh ")).then(|| code.to_owned())
    };
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            found.extend(program(line));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).filter_map(program));
        }
    }
    found
}

#[test]
fn every_command_in_the_docs_is_one() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages: Vec<_> = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.extend([root.join("README.md"), root.join("ARCHITECTURE.md")]);
    let mut checked = 0;
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        for command in commands(&std::fs::read_to_string(page).unwrap()) {
            checked += 1;
            let Err(error) = Cli::try_parse_from(command.split_whitespace()) else { continue };
            // What is left out, or stands for something, is no mistake; a name that does not exist is one.
            let unknown = [ErrorKind::InvalidSubcommand, ErrorKind::UnknownArgument];
            assert!(!unknown.contains(&error.kind()), "{}: {command}\n{error}", page.display());
        }
    }
    assert!(checked > 50, "only {checked} commands were found");
}
