//! `layermesh run`: the node.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::{Exit, Failure, Global, logging, signals};
use crate::{
    config::{Environment, Layer, Setting, load},
    daemon,
};

/// Flags of `layermesh run`. Each can also be set in layermesh.toml or as LAYERMESH_<NAME>; flags win.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Configuration file [default: /etc/layermesh/layermesh.toml or ~/.config/layermesh/layermesh.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the registry mirror for this device's container runtimes [default: 127.0.0.1:7117]
    #[arg(long, value_name = "ADDR:PORT")]
    mirror_addr: Option<String>,
    /// Address where other nodes connect for gossip and control [default: 0.0.0.0:7118]
    #[arg(long, value_name = "ADDR:PORT")]
    peers_addr: Option<String>,
    /// Address where other nodes fetch bytes [default: 0.0.0.0:7119]
    #[arg(long, value_name = "ADDR:PORT")]
    bulk_addr: Option<String>,
    /// Address of health, metrics and status [default: 127.0.0.1:7120]
    #[arg(long, value_name = "ADDR:PORT")]
    status_addr: Option<String>,
    /// Another node's address, such as /ip4/192.168.1.10/tcp/7118; may be given several times
    #[arg(long = "peer", value_name = "MULTIADDR")]
    peers: Vec<String>,
    /// Id of the fleet's authority, which `layermesh fleet init` printed: nobody else's members are let in; may be given
    /// several times
    #[arg(long = "fleet-authority", value_name = "ID")]
    authorities: Vec<String>,
    /// This device's membership, which `layermesh fleet admit` signed [default: what `layermesh fleet join` was given]
    #[arg(long, value_name = "FILE")]
    fleet_membership: Option<PathBuf>,
    /// A key that `layermesh fleet enrolment-key` made: without a membership this device admits itself with it
    #[arg(long, value_name = "FILE")]
    fleet_enrolment_key: Option<PathBuf>,
    /// Let everybody on the LAN in, and give them all that this node holds
    #[arg(long)]
    open: bool,
    /// Name of the fleet: nodes with another are not talked to [default: default]
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// Do not look for other nodes by multicast DNS
    #[arg(long)]
    no_mdns: bool,
    /// Where a registry is, such as docker.io=https://registry-1.docker.io; http:// is taken as meant; may be given
    /// several times
    #[arg(long = "origin", value_name = "REGISTRY=URL")]
    origins: Vec<String>,
    /// Docker's configuration file with credentials [default: ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,
    /// What the device is like: normal, or tiny, which has 64 MiB of memory [default: normal]
    #[arg(long, value_name = "normal|tiny")]
    profile: Option<String>,
    /// Leave at least this much of the disk free [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    free_bytes_min: Option<String>,
    /// Hold no more than this, such as 20GiB; what is used least goes [default: unlimited]
    #[arg(long, value_name = "SIZE")]
    quota: Option<String>,
    /// Hold no more than this share of the disk [default: 50%]
    #[arg(long, value_name = "PERCENT")]
    quota_share: Option<String>,
    /// Take no more than this from registries, such as 2mbit [default: unlimited]
    #[arg(long, value_name = "RATE")]
    uplink_rate: Option<String>,
    /// All nodes of the site together take no more than this from registries [default: unlimited]
    #[arg(long, value_name = "RATE")]
    uplink_site_rate: Option<String>,
    /// Bytes over the uplink cost money: pulls in the background wait for a window, and without one take from peers only
    #[arg(long)]
    uplink_metered: bool,
    /// When pulls in the background may take from registries, such as 'mon-fri 22:00-06:00' or sat,sun; may be given
    /// several times [default: always, or never over a metered uplink]
    #[arg(long = "uplink-window", value_name = "WINDOW")]
    uplink_windows: Vec<String>,
    /// Each device of the site has an uplink of its own: more of them fetch parts of a layer at the same time
    #[arg(long)]
    uplink_own: bool,
    /// Follow signed releases: the root.json that `layermesh release init` made
    #[arg(long, value_name = "FILE")]
    releases_root: Option<PathBuf>,
    /// A channel of releases to follow; may be given several times
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Hold releases for this platform; may be given several times [default: this device's]
    #[arg(long = "releases-platform", value_name = "PLATFORM")]
    releases_platforms: Vec<String>,
    /// Copies of each blob of a release that the site keeps [default: 2]
    #[arg(long, value_name = "N")]
    releases_replicas: Option<String>,
    /// Give no more than this to peers, such as 100mbit [default: unlimited]
    #[arg(long, value_name = "RATE")]
    lan_rate: Option<String>,
    /// Make layers of others that are held, with patches: on (up to 32 MiB of memory), tiny (12 MiB), off
    #[arg(long, value_name = "on|tiny|off")]
    deltas: Option<String>,
    /// Who says what tags stand for: origin-first, site-first or signed-only [default: origin-first]
    #[arg(long, value_name = "POLICY")]
    tag_policy: Option<String>,
    /// Ask a registry for a tag no more often than this from the whole site, such as 60s; 0s: always [default: 60s]
    #[arg(long, value_name = "TIME")]
    tag_fresh: Option<String>,
    /// With site-first, how old what the site knows may be, such as 24h [default: 1h]
    #[arg(long, value_name = "TIME")]
    tag_max_age: Option<String>,
    /// Certificates of the mirror in PEM, its own first: the mirror speaks TLS, for runtimes elsewhere than on this device
    #[arg(long, value_name = "FILE")]
    mirror_certificate: Option<PathBuf>,
    /// Key of the mirror's certificate, in PEM
    #[arg(long, value_name = "FILE")]
    mirror_key: Option<PathBuf>,
    /// User name that the mirror demands from runtimes
    #[arg(long, value_name = "NAME")]
    mirror_username: Option<String>,
    /// File with the password that goes with it
    #[arg(long, value_name = "FILE")]
    mirror_password_file: Option<PathBuf>,
    /// Path of the admin socket [default: admin.sock in the data directory]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Group whose members may use the admin socket, besides the node's own user
    #[arg(long, value_name = "GROUP")]
    admin_group: Option<String>,
    /// Form of log lines: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What to log, such as info or warn,layermesh=debug [default: info,libp2p_gossipsub=error]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// End when standard input closes, and so with the process that holds its other end
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

impl RunArgs {
    /// The configuration file that they name, and the settings that they make.
    pub(super) fn into_parts(mut self, data_dir: Option<PathBuf>) -> (Option<PathBuf>, Layer) {
        (self.config.take(), self.layer(data_dir))
    }

    fn layer(self, data_dir: Option<PathBuf>) -> Layer {
        let path = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
        let mut layer = Layer::default();
        let flags = [
            (Setting::Profile, self.profile),
            (Setting::DataDir, path(data_dir)),
            (Setting::DockerConfig, path(self.docker_config)),
            (Setting::Mirror, self.mirror_addr),
            (Setting::Peers, self.peers_addr),
            (Setting::Bulk, self.bulk_addr),
            (Setting::Status, self.status_addr),
            (Setting::Fleet, self.fleet),
            (Setting::Open, self.open.then(|| "true".to_owned())),
            (Setting::Membership, path(self.fleet_membership)),
            (Setting::EnrolmentKey, path(self.fleet_enrolment_key)),
            (Setting::Mdns, self.no_mdns.then(|| "false".to_owned())),
            (Setting::FreeBytesMin, self.free_bytes_min),
            (Setting::Quota, self.quota),
            (Setting::QuotaShare, self.quota_share),
            (Setting::UplinkRate, self.uplink_rate),
            (Setting::UplinkSiteRate, self.uplink_site_rate),
            (Setting::UplinkMetered, self.uplink_metered.then(|| "true".to_owned())),
            (Setting::UplinkOwn, self.uplink_own.then(|| "true".to_owned())),
            (Setting::LanRate, self.lan_rate),
            (Setting::Deltas, self.deltas),
            (Setting::TagPolicy, self.tag_policy),
            (Setting::TagFresh, self.tag_fresh),
            (Setting::TagMaxAge, self.tag_max_age),
            (Setting::ReleasesRoot, path(self.releases_root)),
            (Setting::ReleasesReplicas, self.releases_replicas),
            (Setting::MirrorCertificate, path(self.mirror_certificate)),
            (Setting::MirrorKey, path(self.mirror_key)),
            (Setting::MirrorUsername, self.mirror_username),
            (Setting::MirrorPasswordFile, path(self.mirror_password_file)),
            (Setting::AdminSocket, path(self.admin_socket)),
            (Setting::AdminGroup, self.admin_group),
            (Setting::LogFormat, self.log_format),
            (Setting::LogFilter, self.log_filter),
        ];
        for (setting, value) in flags {
            if let Some(value) = value {
                layer.flag(setting, value);
            }
        }
        layer.flag_peers(self.peers);
        layer.flag_authorities(self.authorities);
        layer.flag_windows(self.uplink_windows);
        layer.flag_releases(self.channels, self.releases_platforms);
        layer.flag_origins(self.origins);
        layer
    }
}

pub(super) async fn run(args: RunArgs, global: Global) -> Result<Exit, Failure> {
    if global.json || global.admin.is_some() {
        let message = "`run` takes neither --json (see --log-format) nor --admin (see --admin-socket)";
        return Err(Failure::usage(anyhow!(message)));
    }
    let until_stdin_closes = args.until_stdin_closes;
    let (config_file, flags) = args.into_parts(global.data_dir);
    let config = load(flags, config_file.as_deref(), &Environment::current());
    let config = config.map_err(Failure::usage)?;
    logging::start(&config.log)?;
    let shutdown = signals::shutdown_on_signals()?;
    if until_stdin_closes {
        signals::shutdown_when_stdin_closes(shutdown.clone())?;
    }
    daemon::run(config, shutdown).await?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn layer(arguments: &[&str]) -> Layer {
        let cli = Cli::try_parse_from(["layermesh", "run"].iter().chain(arguments)).unwrap();
        let Command::Run(args) = cli.command else { panic!("{:?}", cli.command) };
        args.layer(cli.global.data_dir)
    }

    fn environment() -> Environment {
        Environment { variables: BTreeMap::from([("HOME".to_owned(), "/nowhere".to_owned())]), system_writable: false }
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let flags = layer(&[
            "--data-dir=/d",
            "--mirror-addr=127.0.0.1:1",
            "--peers-addr=127.0.0.1:2",
            "--bulk-addr=127.0.0.1:3",
            "--status-addr=127.0.0.1:4",
            "--peer=/ip4/10.0.0.1/tcp/1",
            "--peer=/ip4/10.0.0.2/tcp/1",
            "--fleet=f",
            "--fleet-authority=12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq",
            "--fleet-membership=/m",
            "--fleet-enrolment-key=/k",
            "--no-mdns",
            "--origin=a.test=http://127.0.0.1:5",
            "--docker-config=/c",
            "--free-bytes-min=1GiB",
            "--uplink-rate=1mbit",
            "--uplink-site-rate=2mbit",
            "--uplink-metered",
            "--uplink-window=mon-fri 22:00-06:00",
            "--uplink-window=sat,sun",
            "--uplink-own",
            "--lan-rate=3mbit",
            "--admin-socket=/run/a.sock",
            "--admin-group=7",
            "--log-format=json",
            "--log-filter=warn",
        ]);
        let config = load(flags, None, &environment()).unwrap();
        assert_eq!((config.data_dir, config.docker_config), ("/d".into(), Some("/c".into())));
        let ports = [config.mirror, config.peers, config.bulk, config.status].map(|address| address.port());
        assert_eq!(ports, [1, 2, 3, 4]);
        assert_eq!((config.static_peers.len(), config.fleet.as_str(), config.mdns), (2, "f", false));
        assert!(config.origins[0].plain_http);
        assert_eq!(config.store_free_bytes_min, 1 << 30);
        let rates = [config.uplink_bytes_per_s, config.uplink.site_bytes_per_s, config.lan_bytes_per_s];
        assert_eq!(rates, [125_000, 250_000, 375_000].map(Some));
        assert_eq!((config.uplink.metered, config.uplink.windows.len(), config.uplink_own), (true, 2, true));
        assert_eq!((config.admin.socket, config.admin.group), (Some("/run/a.sock".into()), Some(7.into())));
        assert_eq!((config.log.format, config.log.filter.as_str()), (crate::config::LogFormat::Json, "warn"));
    }

    #[test]
    fn mistakes_name_the_flag() {
        let flags = layer(&["--mirror-addr=x", "--origin=docker.io", "--log-format=yaml", "--mirror-key=/k"]);
        let errors = load(flags, None, &environment()).unwrap_err().to_string();
        for name in ["--mirror-addr: ", "--origin: ", "--log-format: ", "--mirror-key: ", "4 mistakes"] {
            assert!(errors.contains(name), "{name} in {errors}");
        }
    }
}
