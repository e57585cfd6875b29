//! Every setting that has a name, with its default and what it is: what the reference page, the commented default file and
//! `layermesh config` say.
//!
//! Invariant: each [`Setting`] is here once; a test says so, and that the page agrees.

use std::fmt::Write as _;

use super::layer::{
    AUTHORITIES_VARIABLE, CHANNELS_VARIABLE, PEERS_VARIABLE, PLATFORMS_VARIABLE, Setting, WINDOWS_VARIABLE,
};

/// A setting, as it is described.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Which, if it has one value.
    pub(super) setting: Option<Setting>,
    /// Table of the file; empty for the top level.
    pub(super) table: &'static str,
    /// Key in the table.
    pub(super) key: &'static str,
    /// Environment variable.
    pub(super) variable: &'static str,
    /// Flag of `layermesh run`.
    pub(super) flag: &'static str,
    /// What holds where nobody says, in words.
    pub(super) default: Fallback,
    /// What it is.
    pub(super) about: &'static str,
}

/// What holds where nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    /// This value.
    Value(&'static str),
    /// Something that is not one value, said in Markdown; with a value that could be written.
    Words {
        /// What holds.
        said: &'static str,
        /// What could be written.
        example: &'static str,
    },
}

const fn named(setting: Setting, default: Fallback, about: &'static str) -> Row {
    let (table, key) = setting.key();
    Row { setting: Some(setting), table, key, variable: setting.variable(), flag: setting.flag(), default, about }
}

const fn usual(setting: Setting, value: &'static str, about: &'static str) -> Row {
    named(setting, Fallback::Value(value), about)
}

const fn other(setting: Setting, said: &'static str, example: &'static str, about: &'static str) -> Row {
    named(setting, Fallback::Words { said, example }, about)
}

const fn list(names: [&'static str; 4], said: &'static str, example: &'static str, about: &'static str) -> Row {
    let [table, key, variable, flag] = names;
    Row { setting: None, table, key, variable, flag, default: Fallback::Words { said, example }, about }
}

/// All settings, in the order of the file's tables.
pub(super) const ROWS: [Row; 39] = [
    usual(
        Setting::Profile,
        "normal",
        "what the device is like: `tiny` is for 64 MiB of memory ([limits](packaging.md#tiny-devices))",
    ),
    other(
        Setting::DataDir,
        "`/var/lib/layermesh` if writable, else `~/.local/share/layermesh`",
        "/var/lib/layermesh",
        "identity, store, admin socket and `run.json`",
    ),
    other(
        Setting::DockerConfig,
        "`~/.docker/config.json`",
        "/root/.docker/config.json",
        "credentials of registries; its credential helpers are used",
    ),
    usual(Setting::Mirror, "127.0.0.1:7117", "the registry mirror, for this device's runtimes"),
    usual(Setting::Peers, "0.0.0.0:7118", "libp2p: gossip and control"),
    usual(Setting::Bulk, "0.0.0.0:7119", "bytes for peers, over TLS 1.3"),
    usual(
        Setting::Status,
        "127.0.0.1:7120",
        "the [status page](status-page.md), `/metrics` ([monitoring](monitoring.md)), `/healthz`, `/v1/site`, `/v1/status`",
    ),
    other(
        Setting::MirrorCertificate,
        "none",
        "/etc/layermesh/mirror.pem",
        "PEM file with the mirror's certificates, its own first: it then speaks TLS",
    ),
    other(Setting::MirrorKey, "none", "/etc/layermesh/mirror-key.pem", "PEM file with the key of that certificate"),
    other(Setting::MirrorUsername, "none", "device", "user name that the mirror demands from runtimes"),
    other(
        Setting::MirrorPasswordFile,
        "none",
        "/etc/layermesh/mirror-password",
        "file with the password that goes with it",
    ),
    other(
        Setting::AdminSocket,
        "`admin.sock` in the data directory",
        "/run/layermesh/admin.sock",
        "where admin commands reach the node",
    ),
    other(
        Setting::AdminGroup,
        "none",
        "layermesh",
        "group, by name or number, whose members may use the admin socket besides the node's own user",
    ),
    list(
        ["fleet", "authorities", AUTHORITIES_VARIABLE, "--fleet-authority"],
        "none",
        r#"["12D3KooW..."]"#,
        "ids of the authorities whose members are let in, at most 4",
    ),
    other(
        Setting::Membership,
        "what `layermesh fleet join` was given",
        "/etc/layermesh/membership.pem",
        "file with this device's membership",
    ),
    other(
        Setting::EnrolmentKey,
        "none",
        "/etc/layermesh/enrolment.pem",
        "file with a key with which this device admits itself if it has no membership that holds",
    ),
    usual(Setting::Open, "false", "lets everybody on the LAN in"),
    usual(Setting::Fleet, "default", "a name: only nodes with the same one talk to each other"),
    usual(Setting::Mdns, "true", "whether nodes on the LAN are found by multicast DNS"),
    list(
        ["mesh", "peers", PEERS_VARIABLE, "--peer"],
        "none",
        r#"["/ip4/192.168.1.10/tcp/7118"]"#,
        "further nodes, as multiaddrs such as `/ip4/10.0.0.7/tcp/7118`",
    ),
    usual(Setting::FreeBytesMin, "64MiB", "a blob that would leave less of the disk free is refused"),
    usual(Setting::Quota, "unlimited", "most that blobs may take, such as `20GiB`"),
    usual(Setting::QuotaShare, "50%", "most that they may take of the disk's size"),
    usual(
        Setting::Deltas,
        "on",
        "make layers of others that are held, with patches ([deltas](deltas.md)): `on` takes up to 32 MiB of \
         memory for that, `tiny` 12 MiB, `off` never does it",
    ),
    usual(Setting::UplinkRate, "unlimited", "most that this node takes from all registries together, such as `2mbit`"),
    usual(Setting::UplinkSiteRate, "unlimited", "most that all nodes of the site together take from all registries"),
    usual(Setting::UplinkMetered, "false", "whether bytes over the uplink cost money or a quota"),
    list(
        ["uplink", "windows", WINDOWS_VARIABLE, "--uplink-window"],
        "none",
        r#"["mon-fri 22:00-06:00", "sat,sun"]"#,
        "when background pulls may take from registries, such as `mon-fri 22:00-06:00`",
    ),
    usual(
        Setting::UplinkOwn,
        "false",
        "whether each device of the site has an uplink of its own, such as a modem: up to 32 instead of 4 then \
         fetch parts of a layer at the same time",
    ),
    usual(Setting::LanRate, "unlimited", "most that this node gives to all peers together, such as `100mbit`"),
    usual(Setting::TagPolicy, "origin-first", "who says what tags stand for"),
    usual(
        Setting::TagFresh,
        "60s",
        "after a registry said what a tag stands for, during which nobody on the site asks it again; `0s`: \
         always ask",
    ),
    usual(Setting::TagMaxAge, "1h", "with `site-first`: how old what the site knows may be"),
    other(
        Setting::ReleasesRoot,
        "none",
        "/etc/layermesh/root.json",
        "the `root.json` of signed [releases](releases.md) to follow",
    ),
    list(
        ["releases", "channels", CHANNELS_VARIABLE, "--channel"],
        "none",
        r#"["stable"]"#,
        r#"channels of releases to fetch ahead of time, such as `["stable"]`; at most 4"#,
    ),
    list(
        ["releases", "platforms", PLATFORMS_VARIABLE, "--releases-platform"],
        "this device's",
        r#"["linux/amd64", "linux/arm64"]"#,
        "platforms that releases are held for; at most 4",
    ),
    usual(Setting::ReleasesReplicas, "2", "copies of each blob of a release that the site keeps, 0 to 16"),
    usual(Setting::LogFormat, "text", "`text` or `json`, on standard error"),
    usual(
        Setting::LogFilter,
        "info,libp2p_gossipsub=error",
        "such as `warn,layermesh=debug`; `layermesh::engine=trace` shows all that the engine is told and all \
         that it wants done",
    ),
];

impl Row {
    /// A value as it stands in the file.
    fn written(&self) -> String {
        let (Fallback::Value(text) | Fallback::Words { example: text, .. }) = self.default;
        let bare = text.starts_with('[') || matches!(text, "true" | "false") || text.parse::<u64>().is_ok();
        if bare { text.to_owned() } else { format!("\"{text}\"") }
    }
}

/// A configuration file in which every setting stands, commented out.
pub fn commented_file() -> String {
    let mut text = "# Configuration of a Layermesh node. Every setting stands here with its default, or with an example where it has none.
# `layermesh config check FILE` says what is wrong with a file, `layermesh config show` what holds and why.
"
    .to_owned();
    let mut table = "";
    for row in ROWS {
        if row.table != table {
            table = row.table;
            let _ = write!(text, "\n[{table}]\n");
        }
        let about = plain(row.about);
        let default = match row.default {
            Fallback::Value(_) => String::new(),
            Fallback::Words { said, .. } => format!(" [default: {}]", plain(said)),
        };
        let _ = writeln!(text, "# {about}{default}; also {} or {}", row.variable, row.flag);
        let _ = writeln!(text, "#{} = {}", row.key, row.written());
    }
    text.push_str(EXAMPLES);
    text
}

/// Markdown without its marks: code as it is, and of links what they say.
pub(super) fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.replace(['`', '['], "")
}

const EXAMPLES: &str = r#"
# A registry that needs more than its name; as many of these as there are.
#[[origin]]
#registry = "registry.example:5000"
#endpoint = "https://10.0.0.5:5000"
#ca_file = "/etc/layermesh/registry-ca.pem"
#plain_http = false
#username = "device"
#password_file = "/etc/layermesh/registry-password"

# A registry whose tags have rules of their own.
#[[registry]]
#name = "registry.example:5000"
#policy = "site-first"
#max_age = "24h"

# A directory with blobs/sha256 whose blobs are held where they are, such as containerd's.
#[[store.attached]]
#path = "/var/lib/containerd/io.containerd.content.v1.content"
#reuse = false
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layer::{ConfigError, Place};

    fn name(row: &Row) -> String {
        if row.table.is_empty() { format!("`{}`", row.key) } else { format!("`[{}] {}`", row.table, row.key) }
    }

    /// The rows as a table in Markdown.
    fn markdown() -> String {
        let mut page =
            "| `layermesh.toml` | variable | flag | default | what it is |\n|---|---|---|---|---|\n".to_owned();
        for row in ROWS {
            let default = match row.default {
                Fallback::Value(value) => format!("`{value}`"),
                Fallback::Words { said, .. } => said.to_owned(),
            };
            // Writing to a string cannot fail.
            let _ =
                writeln!(page, "| {} | `{}` | `{}` | {default} | {} |", name(&row), row.variable, row.flag, row.about);
        }
        page
    }

    #[test]
    fn what_is_marked_up_reads_as_plain_text() {
        assert_eq!(plain("the [page](a.md), `x` ([b](c.md))"), "the page, x (b)");
        assert_eq!(plain("no marks"), "no marks");
    }

    #[test]
    fn every_setting_is_here_once() {
        for setting in Setting::ALL {
            assert_eq!(ROWS.iter().filter(|row| row.setting == Some(setting)).count(), 1, "{setting:?}");
        }
        let lists: Vec<_> = ROWS.iter().filter(|row| row.setting.is_none()).map(|row| row.variable).collect();
        let variables = [AUTHORITIES_VARIABLE, PEERS_VARIABLE, WINDOWS_VARIABLE, CHANNELS_VARIABLE, PLATFORMS_VARIABLE];
        assert_eq!(lists, variables);
    }

    #[test]
    fn the_reference_page_says_the_same() {
        let page = include_str!("../../../docs/configuration.md");
        let table = markdown();
        assert!(page.contains(&table), "docs/configuration.md is to have this table:\n{table}");
    }

    #[test]
    fn all_that_the_commented_file_has_is_known() {
        let text = commented_file();
        let uncommented: String = text
            .lines()
            .map(|line| if line.starts_with("# ") { line } else { line.strip_prefix('#').unwrap_or(line) })
            .map(|line| format!("{line}\n"))
            .collect();
        let mut errors: Vec<ConfigError> = Vec::new();
        let path = std::path::Path::new("layermesh.toml");
        let layer = crate::config::file::parse(path, &uncommented, &mut errors);
        assert!(errors.is_empty(), "{errors:#?}\n{uncommented}");
        assert_eq!(layer.values.len(), Setting::ALL.len());
        assert!(layer.values.values().all(|given| matches!(given.place, Place::File { .. })));
        crate::config::file::parse(path, &text, &mut errors);
        assert!(errors.is_empty(), "as it is it changes nothing: {errors:#?}");
    }
}
