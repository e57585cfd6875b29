//! From merged layers to a [`Config`]: every word parsed once, every mistake reported.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use layermesh_proto::{
    Repository,
    engine::{Uplink, budget::Window},
    wire::{FOLLOWED_CHANNELS_MAX, FOLLOWED_PLATFORMS_MAX},
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{
    AttachedConfig, BULK_DEFAULT, Config, Credentials, Deltas, Environment, FLEET_DEFAULT, FREE_BYTES_MIN_DEFAULT,
    LOG_FILTER_DEFAULT, LogConfig, LogFormat, MIRROR_DEFAULT, OriginConfig, PEERS_DEFAULT, Profile,
    QUOTA_SHARE_PERCENT_DEFAULT, Quota, ReleasesConfig, STATUS_DEFAULT, file,
    layer::{ConfigError, ConfigErrors, Given, Layer, Place, RawOrigin, Setting},
    units::{parse_bytes, parse_rate},
    windows::parse_window,
};
use crate::store::attached::ATTACHED_MAX;
use crate::{
    contents::{Platform, PlatformError},
    release::{Channel, Trusted, set::ROOT_BYTES_MAX},
};

/// Largest configuration file read; a larger one is some other file.
const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// Largest password file read.
const PASSWORD_FILE_BYTES_MAX: u64 = 64 << 10;
/// Static peers beyond this are a mistake: a node keeps fewer connections.
const STATIC_PEERS_MAX: usize = 64;
/// Origins beyond this are a mistake.
const ORIGINS_MAX: usize = 64;
/// Windows beyond this are a mistake: one for each half of each day, and the engine goes through all of them.
const WINDOWS_MAX: usize = 14;
/// Most copies of a release that a site keeps: more than devices that fail at once.
const REPLICAS_MAX: usize = 16;
/// Longest name of a fleet; it is part of a gossip topic.
const FLEET_LEN_MAX: usize = 64;

/// Reads the configuration: the file (`config_file`, or the one that the environment or the system has), under the
/// environment's variables, under `flags`.
///
/// # Errors
/// With every mistake found in any of them.
pub fn load(flags: Layer, config_file: Option<&Path>, environment: &Environment) -> Result<Config, ConfigErrors> {
    let (layer, errors) = merged(flags, config_file, environment);
    checked(layer, errors, environment)
}

/// What the merged sources say, unless something is wrong with them.
pub(super) fn checked(
    layer: Layer,
    errors: Vec<ConfigError>,
    environment: &Environment,
) -> Result<Config, ConfigErrors> {
    let mut validator = Validator { layer, errors };
    let config = validator.config(environment);
    if validator.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(validator.errors)) }
}

/// All sources in one, and what is wrong with them so far.
pub(super) fn merged(flags: Layer, config_file: Option<&Path>, environment: &Environment) -> (Layer, Vec<ConfigError>) {
    let mut errors = Vec::new();
    let layer = file_layer(config_file, environment, &mut errors)
        .overlaid(Layer::from_variables(&environment.variables, &mut errors))
        .overlaid(flags)
        .over_profile();
    (layer, errors)
}

/// The data directory of the node that an admin command means. Mistakes elsewhere in the configuration are left for
/// the node to report.
pub fn find_data_dir(flag: Option<PathBuf>, environment: &Environment) -> Option<PathBuf> {
    flag.or_else(|| named_path(Setting::DataDir, environment)).or_else(|| environment.default_data_dir())
}

/// The admin socket that the environment's configuration file or variables name, if any.
pub fn find_admin_socket(environment: &Environment) -> Option<PathBuf> {
    named_path(Setting::AdminSocket, environment)
}

/// The path that the environment's configuration file or variables give for a setting, whatever is wrong with the rest.
fn named_path(setting: Setting, environment: &Environment) -> Option<PathBuf> {
    merged(Layer::default(), None, environment).0.values.get(&setting).map(Given::path)
}

/// The mirror's address, whether it demands a password or TLS, and the registries that have origins, for whoever tells
/// runtimes of them. What is wrong with other settings is left for the node to report.
///
/// # Errors
/// If the file cannot be read, or has mistakes in it.
pub fn find_mirror(
    flag: Option<String>,
    config_file: Option<&Path>,
    environment: &Environment,
) -> Result<(SocketAddr, bool, Vec<String>), ConfigErrors> {
    let mut flags = Layer::default();
    if let Some(flag) = flag {
        flags.flag(Setting::Mirror, flag);
    }
    let (layer, errors) = merged(flags, config_file, environment);
    let mut validator = Validator { layer, errors };
    let mirror = validator.address(Setting::Mirror, MIRROR_DEFAULT);
    let demanding = [Setting::MirrorCertificate, Setting::MirrorUsername];
    let is_protected = demanding.iter().any(|setting| validator.layer.values.contains_key(setting));
    let registries = validator.layer.origins.clone();
    let registries = registries.iter().filter_map(|origin| origin.registry.as_ref());
    let registries = registries.filter_map(|registry| validator.parsed(registry, parse_registry)).collect();
    if validator.errors.is_empty() {
        Ok((mirror, is_protected, registries))
    } else {
        Err(ConfigErrors(validator.errors))
    }
}

fn file_layer(asked: Option<&Path>, environment: &Environment, errors: &mut Vec<ConfigError>) -> Layer {
    let Some(path) = environment.config_file(asked) else { return Layer::default() };
    match read_text(&path, CONFIG_FILE_BYTES_MAX) {
        Ok(text) => file::parse(&path, &text, errors),
        Err(error) => {
            errors.push(ConfigError::new(path.display(), format!("cannot be read: {error}")));
            Layer::default()
        }
    }
}

fn read_text(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > bytes_max {
        return Err(std::io::Error::other(format!("it has {size} bytes, more than {bytes_max}")));
    }
    std::fs::read_to_string(path)
}

pub(super) struct Validator {
    pub(super) layer: Layer,
    errors: Vec<ConfigError>,
}

impl Validator {
    fn config(&mut self, environment: &Environment) -> Config {
        let data_dir = self.layer.values.get(&Setting::DataDir).map(Given::path);
        let data_dir = data_dir.or_else(|| environment.default_data_dir()).unwrap_or_else(|| {
            let message = "there is no home directory to keep data in: give a directory";
            self.errors.push(ConfigError::new(Setting::DataDir.flag(), message));
            PathBuf::new()
        });
        let mirror = self.address(Setting::Mirror, MIRROR_DEFAULT);
        let config = Config {
            profile: self.value(Setting::Profile, Profile::parse).unwrap_or_default(),
            data_dir,
            mirror,
            mirror_access: self.mirror_access(mirror),
            admin: self.admin(),
            peers: self.address(Setting::Peers, PEERS_DEFAULT),
            bulk: self.address(Setting::Bulk, BULK_DEFAULT),
            status: self.address(Setting::Status, STATUS_DEFAULT),
            fleet: self.value(Setting::Fleet, parse_fleet).unwrap_or_else(|| FLEET_DEFAULT.to_owned()),
            admission: self.admission(),
            mdns: self.value(Setting::Mdns, parse_bool).unwrap_or(true),
            static_peers: self.static_peers(),
            origins: self.origins(),
            docker_config: self.layer.values.get(&Setting::DockerConfig).map(Given::path),
            store_free_bytes_min: self.value(Setting::FreeBytesMin, parse_bytes).unwrap_or(FREE_BYTES_MIN_DEFAULT),
            store_quota: Quota {
                bytes: self.value(Setting::Quota, parse_quota).flatten(),
                share_percent: self.value(Setting::QuotaShare, parse_percent).unwrap_or(QUOTA_SHARE_PERCENT_DEFAULT),
            },
            store_attached: self.attached(),
            uplink_bytes_per_s: self.value(Setting::UplinkRate, parse_rate).flatten(),
            uplink: Uplink {
                metered: self.value(Setting::UplinkMetered, parse_bool).unwrap_or(false),
                windows: self.windows(),
                site_bytes_per_s: self.value(Setting::UplinkSiteRate, parse_rate).flatten(),
            },
            uplink_own: self.value(Setting::UplinkOwn, parse_bool).unwrap_or(false),
            deltas: self.value(Setting::Deltas, parse_deltas).unwrap_or_default(),
            lan_bytes_per_s: self.value(Setting::LanRate, parse_rate).flatten(),
            tags: self.tag_rules(),
            releases: self.releases(),
            log: LogConfig {
                format: self.value(Setting::LogFormat, parse_log_format).unwrap_or(LogFormat::Text),
                filter: self.value(Setting::LogFilter, parse_filter).unwrap_or_else(|| LOG_FILTER_DEFAULT.to_owned()),
            },
        };
        self.distinct(&config);
        config
    }

    pub(super) fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.errors.push(ConfigError::new(place, message));
    }

    pub(super) fn value<T>(&mut self, setting: Setting, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let given = self.layer.values.get(&setting)?.clone();
        self.parsed(&given, parse)
    }

    pub(super) fn parsed<T>(&mut self, given: &Given, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(&given.text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(&given.place, message);
                None
            }
        }
    }

    fn address(&mut self, setting: Setting, default: &'static str) -> SocketAddr {
        let given = self.value(setting, parse_address);
        // The defaults are addresses; a test says so.
        given.or_else(|| default.parse().ok()).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn static_peers(&mut self) -> Vec<Multiaddr> {
        let given = self.layer.peers.clone().unwrap_or_default();
        if let Some(first) = given.get(STATIC_PEERS_MAX) {
            self.error(&first.place, format!("more than {STATIC_PEERS_MAX} peers; a few are enough to find the rest"));
        }
        given.iter().filter_map(|peer| self.parsed(peer, parse_peer)).collect()
    }

    fn windows(&mut self) -> Vec<Window> {
        let given = self.layer.windows.clone().unwrap_or_default();
        if let Some(first) = given.get(WINDOWS_MAX) {
            self.error(&first.place, format!("more than {WINDOWS_MAX} windows"));
        }
        given.iter().filter_map(|window| self.parsed(window, parse_window)).collect()
    }

    fn attached(&mut self) -> Vec<AttachedConfig> {
        let raw = self.layer.attached.clone();
        if let Some(first) = raw.get(ATTACHED_MAX) {
            self.error(&first.place, format!("more than {ATTACHED_MAX} attached stores"));
        }
        let mut attached: Vec<AttachedConfig> = Vec::new();
        for store in &raw {
            let reuse = store.reuse.as_ref().and_then(|given| self.parsed(given, parse_bool)).unwrap_or(false);
            match store.path.as_ref().map(Given::path) {
                None => {
                    self.error(&store.place, "an attached store needs `path`, a directory with `blobs/sha256` in it")
                }
                Some(path) if attached.iter().any(|other| other.path == path) => {
                    self.error(&store.place, format!("`{}` is attached twice", path.display()));
                }
                Some(path) => attached.push(AttachedConfig { path, reuse }),
            }
        }
        attached
    }

    fn releases(&mut self) -> Option<ReleasesConfig> {
        let replicas = self.value(Setting::ReleasesReplicas, parse_replicas);
        let channels = self.names(self.layer.channels.clone(), FOLLOWED_CHANNELS_MAX, "channels", parse_channel);
        let platforms = self.names(self.layer.platforms.clone(), FOLLOWED_PLATFORMS_MAX, "platforms", parse_platform);
        let Some(given) = self.layer.values.get(&Setting::ReleasesRoot).cloned() else {
            let stray = self.layer.channels.iter().flatten().next().cloned();
            if let Some(channel) = stray {
                let message = "channels need a root: name the root.json that `layermesh release init` made in `root`";
                self.error(&channel.place, message);
            }
            return None;
        };
        if channels.is_empty() {
            self.error(
                &given.place,
                "a root without channels: name those to follow, such as `channels = [\"stable\"]`",
            );
        }
        let path = given.path();
        let root = read_text(&path, ROOT_BYTES_MAX as u64).map_err(|error| error.to_string());
        let root = root.map(|text| Trusted::root(text.as_bytes()));
        let root = root.and_then(|root| root.repository().map(|_| root).map_err(|refusal| refusal.to_string()));
        match root {
            Ok(root) => Some(ReleasesConfig {
                root,
                channels,
                platforms: if platforms.is_empty() { vec![Platform::of_this_device()] } else { platforms },
                replicas: replicas.unwrap_or(engine_replicas()),
            }),
            Err(error) => {
                self.error(&given.place, format!("`{}` is not a root of releases: {error}", path.display()));
                None
            }
        }
    }

    fn names<T: PartialEq>(
        &mut self,
        given: Option<Vec<Given>>,
        max: usize,
        what: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let given = given.unwrap_or_default();
        if let Some(first) = given.get(max) {
            self.error(&first.place, format!("more than {max} {what}"));
        }
        let mut names = Vec::new();
        for name in given.iter().filter_map(|name| self.parsed(name, parse)).collect::<Vec<_>>() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn origins(&mut self) -> Vec<OriginConfig> {
        let raw = self.layer.origins.clone();
        if let Some(first) = raw.get(ORIGINS_MAX) {
            self.error(&first.place, format!("more than {ORIGINS_MAX} origins"));
        }
        let mut origins: Vec<OriginConfig> = Vec::new();
        for origin in &raw {
            let Some(parsed) = self.origin(origin) else { continue };
            let same = |other: &OriginConfig| other.registry == parsed.registry && other.endpoint == parsed.endpoint;
            if origins.iter().any(same) {
                self.error(
                    &origin.place,
                    format!(
                        "a second origin for `{}` at the same place: leave one out, or give it another `endpoint`",
                        parsed.registry
                    ),
                );
            } else {
                origins.push(parsed);
            }
        }
        origins
    }

    fn origin(&mut self, raw: &RawOrigin) -> Option<OriginConfig> {
        let Some(registry) = &raw.registry else {
            self.error(&raw.place, "an origin needs `registry = \"docker.io\"` or another registry's name");
            return None;
        };
        let registry = self.parsed(registry, parse_registry);
        let typed = !matches!(raw.place, Place::File { .. });
        if typed && raw.endpoint.is_none() {
            self.error(&raw.place, "write REGISTRY=URL, such as `docker.io=https://registry-1.docker.io`");
        }
        let plain_http = raw.plain_http.as_ref().and_then(|given| self.parsed(given, parse_bool));
        let endpoint = raw.endpoint.as_ref().and_then(|given| self.parsed(given, parse_endpoint));
        let is_plain = endpoint.as_ref().is_some_and(|url| url.scheme() == "http");
        if let (Some(given), true, false, false) = (&raw.endpoint, is_plain, typed, plain_http == Some(true)) {
            self.error(
                &given.place,
                "plain HTTP is neither private nor authentic: write https://, or add `plain_http = true`",
            );
        }
        Some(OriginConfig {
            registry: registry?,
            endpoint,
            ca_file: raw.ca_file.as_ref().and_then(|given| self.existing_file(given)),
            plain_http: plain_http.unwrap_or(typed && is_plain),
            credentials: self.credentials(raw.username.as_ref(), raw.password_file.as_ref()),
        })
    }

    pub(super) fn existing_file(&mut self, given: &Given) -> Option<PathBuf> {
        let path = given.path();
        if let Err(error) = std::fs::metadata(&path) {
            self.error(&given.place, format!("`{}` cannot be read: {error}", path.display()));
            return None;
        }
        Some(path)
    }

    /// A user name and the password in a file beside it; one without the other is a mistake.
    pub(super) fn credentials(&mut self, username: Option<&Given>, file: Option<&Given>) -> Option<Credentials> {
        match (username, file) {
            (Some(username), Some(file)) => match read_text(&file.path(), PASSWORD_FILE_BYTES_MAX) {
                Ok(password) => Some(Credentials {
                    username: username.text.clone(),
                    password: password.trim_end_matches(['\r', '\n']).to_owned(),
                }),
                Err(error) => {
                    self.error(&file.place, format!("`{}` cannot be read: {error}", file.path().display()));
                    None
                }
            },
            (Some(username), None) => {
                self.error(&username.place, "a user name needs `password_file` beside it");
                None
            }
            (None, Some(file)) => {
                self.error(&file.place, "a password needs `username` beside it");
                None
            }
            (None, None) => None,
        }
    }

    /// Two services on one address cannot both bind it; said here, the message names both settings.
    fn distinct(&mut self, config: &Config) {
        let used = [
            (Setting::Mirror, config.mirror),
            (Setting::Peers, config.peers),
            (Setting::Bulk, config.bulk),
            (Setting::Status, config.status),
        ];
        for (index, (setting, address)) in used.iter().enumerate() {
            let clash = |other: &&(Setting, SocketAddr)| {
                let same_host = other.1.ip() == address.ip()
                    || (other.1.ip().is_unspecified() || address.ip().is_unspecified())
                        && other.1.is_ipv4() == address.is_ipv4();
                address.port() != 0 && other.1.port() == address.port() && same_host
            };
            if let Some((other, _)) = used[..index].iter().find(clash) {
                let place = match self.layer.values.get(setting).or_else(|| self.layer.values.get(other)) {
                    Some(given) => given.place.clone(),
                    None => continue,
                };
                let message =
                    format!("{} and {} would listen on the same port {}", setting.flag(), other.flag(), address.port());
                self.error(&place, message);
            }
        }
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        if text.parse::<u16>().is_ok() {
            format!("`{text}` is a port: write the address too, such as `127.0.0.1:{text}`")
        } else {
            format!("`{text}` is not an address and port: write one such as `127.0.0.1:7117` or `[::1]:7117`")
        }
    })
}

pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn parse_fleet(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > FLEET_LEN_MAX || !text.chars().all(allowed) {
        return Err(format!(
            "`{text}` is not a fleet's name: write up to {FLEET_LEN_MAX} letters, digits, `.`, `_` and `-`"
        ));
    }
    Ok(text.to_owned())
}

fn parse_channel(text: &str) -> Result<Channel, String> {
    text.parse().map_err(|error: crate::release::NameError| error.to_string())
}

fn parse_platform(text: &str) -> Result<Platform, String> {
    text.parse().map_err(|error: PlatformError| error.to_string())
}

fn parse_replicas(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number <= REPLICAS_MAX);
    number.ok_or_else(|| format!("`{text}` is not a number of copies: write 0 to {REPLICAS_MAX}"))
}

fn engine_replicas() -> usize {
    layermesh_proto::engine::Config::default().release_replicas
}

fn parse_deltas(text: &str) -> Result<Deltas, String> {
    match text {
        "on" => Ok(Deltas::On),
        "tiny" => Ok(Deltas::Tiny),
        "off" => Ok(Deltas::Off),
        _ => Err(format!("`{text}` does not say whether layers are made with patches: write `on`, `tiny` or `off`")),
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is not a log format: write `text` or `json`")),
    }
}

fn parse_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("`{text}` is not a log filter ({error}): write `info`, or `warn,layermesh=debug`")),
    }
}

/// A size, or `unlimited`.
fn parse_quota(text: &str) -> Result<Option<u64>, String> {
    if text.trim().eq_ignore_ascii_case("unlimited") {
        return Ok(None);
    }
    let wrong = |error| format!("{error}, or `unlimited`");
    match parse_bytes(text).map_err(wrong)? {
        0 => Err("a store without room holds nothing: write a quota such as `20GiB`, or `unlimited`".to_owned()),
        bytes => Ok(Some(bytes)),
    }
}

fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    match number.parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err(format!("`{text}` is not a share of the disk: write 1 to 100 percent, such as `50%`")),
    }
}

fn parse_peer(text: &str) -> Result<Multiaddr, String> {
    let example = "write one such as `/ip4/192.168.1.10/tcp/7118`";
    let address: Multiaddr =
        text.parse().map_err(|error| format!("`{text}` is not a multiaddress ({error}): {example}"))?;
    if !address.iter().any(|part| matches!(part, Protocol::Tcp(_))) {
        return Err(format!("`{text}` has no TCP port: {example}"));
    }
    Ok(address)
}

pub(crate) fn parse_registry(text: &str) -> Result<String, String> {
    // The grammar of registries is private to the repository's parser, so a repository is made of it.
    match Repository::new(text, "a") {
        Ok(repository) => Ok(repository.registry().to_owned()),
        Err(error) => Err(format!("{error}, such as `docker.io` or `registry.local:5000`")),
    }
}

fn parse_endpoint(text: &str) -> Result<Url, String> {
    let example = "write one such as `https://registry.local:5000`";
    let url = Url::parse(text).map_err(|error| format!("`{text}` is not a URL ({error}): {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("`{text}` is not a web address: {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not shown: it holds a password.
        return Err(
            "the URL has credentials in it: use `username` and `password_file`, or docker's configuration".into()
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` has a query or fragment: {example}"));
    }
    Ok(url)
}
