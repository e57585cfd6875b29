//! One source's settings as unparsed text, each with its place.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A setting that has one value. Lists (static peers, origins) are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// What the device is like.
    Profile,
    /// Directory of everything that the node keeps.
    DataDir,
    /// Docker's credentials file.
    DockerConfig,
    /// Address of the mirror.
    Mirror,
    /// Address of the control plane.
    Peers,
    /// Address of the bulk exchange.
    Bulk,
    /// Address of health and metrics.
    Status,
    /// Name of the fleet.
    Fleet,
    /// Whether everybody is let in.
    Open,
    /// File with the node's membership.
    Membership,
    /// File with an enrolment key.
    EnrolmentKey,
    /// Whether multicast DNS is used.
    Mdns,
    /// Bytes to leave free.
    FreeBytesMin,
    /// Bytes that blobs may take.
    Quota,
    /// Share of the disk that blobs may take.
    QuotaShare,
    /// Rate of what is taken from registries.
    UplinkRate,
    /// The same for all nodes of the site together.
    UplinkSiteRate,
    /// Whether bytes from registries cost money or a quota.
    UplinkMetered,
    /// Whether each device of the site has an uplink of its own.
    UplinkOwn,
    /// Rate of what is given to peers.
    LanRate,
    /// Memory for making layers of others.
    Deltas,
    /// Who says what tags stand for.
    TagPolicy,
    /// How long what an origin said of a tag counts for the site.
    TagFresh,
    /// How old what the site knows may be where it goes first.
    TagMaxAge,
    /// File with the trusted root of releases.
    ReleasesRoot,
    /// Copies of each blob of a release.
    ReleasesReplicas,
    /// File with the mirror's certificates.
    MirrorCertificate,
    /// File with the key of the mirror's certificate.
    MirrorKey,
    /// User name that the mirror demands.
    MirrorUsername,
    /// File with the password that the mirror demands.
    MirrorPasswordFile,
    /// Path of the admin socket.
    AdminSocket,
    /// Users who may use the admin socket.
    AdminGroup,
    /// Form of log lines.
    LogFormat,
    /// Which log lines.
    LogFilter,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 34] = [
        Self::Profile,
        Self::DataDir,
        Self::DockerConfig,
        Self::Mirror,
        Self::Peers,
        Self::Bulk,
        Self::Status,
        Self::Fleet,
        Self::Open,
        Self::Membership,
        Self::EnrolmentKey,
        Self::Mdns,
        Self::FreeBytesMin,
        Self::Quota,
        Self::QuotaShare,
        Self::UplinkRate,
        Self::UplinkSiteRate,
        Self::UplinkMetered,
        Self::UplinkOwn,
        Self::LanRate,
        Self::Deltas,
        Self::TagPolicy,
        Self::TagFresh,
        Self::TagMaxAge,
        Self::ReleasesRoot,
        Self::ReleasesReplicas,
        Self::MirrorCertificate,
        Self::MirrorKey,
        Self::MirrorUsername,
        Self::MirrorPasswordFile,
        Self::AdminSocket,
        Self::AdminGroup,
        Self::LogFormat,
        Self::LogFilter,
    ];

    /// Table (empty for the top level) and key in `layermesh.toml`.
    pub const fn key(self) -> (&'static str, &'static str) {
        match self {
            Self::Profile => ("", "profile"),
            Self::DataDir => ("", "data_dir"),
            Self::DockerConfig => ("", "docker_config"),
            Self::Mirror => ("listen", "mirror"),
            Self::Peers => ("listen", "peers"),
            Self::Bulk => ("listen", "bulk"),
            Self::Status => ("listen", "status"),
            Self::Fleet => ("mesh", "fleet"),
            Self::Open => ("fleet", "open"),
            Self::Membership => ("fleet", "membership"),
            Self::EnrolmentKey => ("fleet", "enrolment_key"),
            Self::Mdns => ("mesh", "mdns"),
            Self::FreeBytesMin => ("store", "free_bytes_min"),
            Self::Quota => ("store", "quota"),
            Self::QuotaShare => ("store", "quota_share"),
            Self::UplinkRate => ("uplink", "rate"),
            Self::UplinkSiteRate => ("uplink", "site_rate"),
            Self::UplinkMetered => ("uplink", "metered"),
            Self::UplinkOwn => ("uplink", "own"),
            Self::LanRate => ("lan", "rate"),
            Self::Deltas => ("store", "deltas"),
            Self::TagPolicy => ("tags", "policy"),
            Self::TagFresh => ("tags", "fresh"),
            Self::TagMaxAge => ("tags", "max_age"),
            Self::ReleasesRoot => ("releases", "root"),
            Self::ReleasesReplicas => ("releases", "replicas"),
            Self::MirrorCertificate => ("mirror", "certificate"),
            Self::MirrorKey => ("mirror", "key"),
            Self::MirrorUsername => ("mirror", "username"),
            Self::MirrorPasswordFile => ("mirror", "password_file"),
            Self::AdminSocket => ("admin", "socket"),
            Self::AdminGroup => ("admin", "group"),
            Self::LogFormat => ("log", "format"),
            Self::LogFilter => ("log", "filter"),
        }
    }

    /// Environment variable.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Profile => "LAYERMESH_PROFILE",
            Self::DataDir => "LAYERMESH_DATA_DIR",
            Self::DockerConfig => "LAYERMESH_DOCKER_CONFIG",
            Self::Mirror => "LAYERMESH_MIRROR_ADDR",
            Self::Peers => "LAYERMESH_PEERS_ADDR",
            Self::Bulk => "LAYERMESH_BULK_ADDR",
            Self::Status => "LAYERMESH_STATUS_ADDR",
            Self::Fleet => "LAYERMESH_FLEET",
            Self::Open => "LAYERMESH_OPEN",
            Self::Membership => "LAYERMESH_FLEET_MEMBERSHIP",
            Self::EnrolmentKey => "LAYERMESH_FLEET_ENROLMENT_KEY",
            Self::Mdns => "LAYERMESH_MDNS",
            Self::FreeBytesMin => "LAYERMESH_FREE_BYTES_MIN",
            Self::Quota => "LAYERMESH_QUOTA",
            Self::QuotaShare => "LAYERMESH_QUOTA_SHARE",
            Self::UplinkRate => "LAYERMESH_UPLINK_RATE",
            Self::UplinkSiteRate => "LAYERMESH_UPLINK_SITE_RATE",
            Self::UplinkMetered => "LAYERMESH_UPLINK_METERED",
            Self::UplinkOwn => "LAYERMESH_UPLINK_OWN",
            Self::LanRate => "LAYERMESH_LAN_RATE",
            Self::Deltas => "LAYERMESH_DELTAS",
            Self::TagPolicy => "LAYERMESH_TAG_POLICY",
            Self::TagFresh => "LAYERMESH_TAG_FRESH",
            Self::TagMaxAge => "LAYERMESH_TAG_MAX_AGE",
            Self::ReleasesRoot => "LAYERMESH_RELEASES_ROOT",
            Self::ReleasesReplicas => "LAYERMESH_RELEASES_REPLICAS",
            Self::MirrorCertificate => "LAYERMESH_MIRROR_CERTIFICATE",
            Self::MirrorKey => "LAYERMESH_MIRROR_KEY",
            Self::MirrorUsername => "LAYERMESH_MIRROR_USERNAME",
            Self::MirrorPasswordFile => "LAYERMESH_MIRROR_PASSWORD_FILE",
            Self::AdminSocket => "LAYERMESH_ADMIN_SOCKET",
            Self::AdminGroup => "LAYERMESH_ADMIN_GROUP",
            Self::LogFormat => "LAYERMESH_LOG_FORMAT",
            Self::LogFilter => "LAYERMESH_LOG_FILTER",
        }
    }

    /// Flag of `layermesh run`.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Profile => "--profile",
            Self::DataDir => "--data-dir",
            Self::DockerConfig => "--docker-config",
            Self::Mirror => "--mirror-addr",
            Self::Peers => "--peers-addr",
            Self::Bulk => "--bulk-addr",
            Self::Status => "--status-addr",
            Self::Fleet => "--fleet",
            Self::Open => "--open",
            Self::Membership => "--fleet-membership",
            Self::EnrolmentKey => "--fleet-enrolment-key",
            Self::Mdns => "--no-mdns",
            Self::FreeBytesMin => "--free-bytes-min",
            Self::Quota => "--quota",
            Self::QuotaShare => "--quota-share",
            Self::UplinkRate => "--uplink-rate",
            Self::UplinkSiteRate => "--uplink-site-rate",
            Self::UplinkMetered => "--uplink-metered",
            Self::UplinkOwn => "--uplink-own",
            Self::LanRate => "--lan-rate",
            Self::Deltas => "--deltas",
            Self::TagPolicy => "--tag-policy",
            Self::TagFresh => "--tag-fresh",
            Self::TagMaxAge => "--tag-max-age",
            Self::ReleasesRoot => "--releases-root",
            Self::ReleasesReplicas => "--releases-replicas",
            Self::MirrorCertificate => "--mirror-certificate",
            Self::MirrorKey => "--mirror-key",
            Self::MirrorUsername => "--mirror-username",
            Self::MirrorPasswordFile => "--mirror-password-file",
            Self::AdminSocket => "--admin-socket",
            Self::AdminGroup => "--admin-group",
            Self::LogFormat => "--log-format",
            Self::LogFilter => "--log-filter",
        }
    }
}

/// Variable with static peers, separated by commas or spaces.
pub(super) const PEERS_VARIABLE: &str = "LAYERMESH_PEERS";
/// Variable with the ids of the fleet's authorities, separated by commas or spaces.
pub(super) const AUTHORITIES_VARIABLE: &str = "LAYERMESH_FLEET_AUTHORITIES";
/// Variable with the directory of an authority's key, read by `layermesh fleet`.
pub(super) const FLEET_DIR_VARIABLE: &str = "LAYERMESH_FLEET_DIR";
/// Variable with windows for background work, separated by semicolons: a window has commas and spaces itself.
pub(super) const WINDOWS_VARIABLE: &str = "LAYERMESH_UPLINK_WINDOWS";
/// Variable with channels of releases, separated by commas or spaces.
pub(super) const CHANNELS_VARIABLE: &str = "LAYERMESH_RELEASES_CHANNELS";
/// Variable with platforms that releases are held for, separated by commas or spaces.
pub(super) const PLATFORMS_VARIABLE: &str = "LAYERMESH_RELEASES_PLATFORMS";
/// Variable with the directory of an admin's releases, read by `layermesh release`.
pub(super) const RELEASES_VARIABLE: &str = "LAYERMESH_RELEASES";
/// Variable with origins as `REGISTRY=URL`, separated by commas or spaces.
pub(super) const ORIGINS_VARIABLE: &str = "LAYERMESH_ORIGINS";
/// Variable with the path of the configuration file.
pub(super) const CONFIG_VARIABLE: &str = "LAYERMESH_CONFIG";
/// Variable with the path of the admin socket, read by the admin commands.
pub(super) const ADMIN_VARIABLE: &str = "LAYERMESH_ADMIN";
const PREFIX: &str = "LAYERMESH_";

/// Where a word was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File {
        path: Arc<Path>,
        line: usize,
    },
    Variable(&'static str),
    Flag(&'static str),
    /// Nobody wrote it: the named profile's.
    Profile(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Profile(name) => write!(f, "profile {name}"),
        }
    }
}

/// A word and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) place: Place,
}

impl Given {
    /// The word as a path; one in a file is relative to the file's directory.
    pub(super) fn path(&self) -> PathBuf {
        match &self.place {
            Place::File { path, .. } => path.parent().unwrap_or(Path::new("")).join(&self.text),
            _ => PathBuf::from(&self.text),
        }
    }
}

/// An attached store, unparsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawAttached {
    pub(super) place: Place,
    pub(super) path: Option<Given>,
    pub(super) reuse: Option<Given>,
}

/// An origin, unparsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawOrigin {
    pub(super) place: Place,
    pub(super) registry: Option<Given>,
    pub(super) endpoint: Option<Given>,
    pub(super) ca_file: Option<Given>,
    pub(super) plain_http: Option<Given>,
    pub(super) username: Option<Given>,
    pub(super) password_file: Option<Given>,
}

impl RawOrigin {
    pub(super) fn at(place: Place) -> Self {
        Self {
            place,
            registry: None,
            endpoint: None,
            ca_file: None,
            plain_http: None,
            username: None,
            password_file: None,
        }
    }
}

/// A registry's rule for tags, unparsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawRegistry {
    pub(super) place: Place,
    pub(super) name: Option<Given>,
    pub(super) policy: Option<Given>,
    pub(super) fresh: Option<Given>,
    pub(super) max_age: Option<Given>,
}

/// One source's settings. Later calls of the builders win over earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    pub(super) values: BTreeMap<Setting, Given>,
    pub(super) peers: Option<Vec<Given>>,
    pub(super) windows: Option<Vec<Given>>,
    pub(super) authorities: Option<Vec<Given>>,
    pub(super) channels: Option<Vec<Given>>,
    pub(super) platforms: Option<Vec<Given>>,
    pub(super) origins: Vec<RawOrigin>,
    /// Only a file has any.
    pub(super) registries: Vec<RawRegistry>,
    /// Of the file alone.
    pub(super) attached: Vec<RawAttached>,
}

impl Layer {
    /// Takes a flag's value.
    pub fn flag(&mut self, setting: Setting, value: impl Into<String>) {
        self.values.insert(setting, Given { text: value.into(), place: Place::Flag(setting.flag()) });
    }

    /// Takes the values of `--peer`; none leaves the weaker sources' peers.
    pub fn flag_peers(&mut self, peers: Vec<String>) {
        if !peers.is_empty() {
            let given = |text| Given { text, place: Place::Flag("--peer") };
            self.peers = Some(peers.into_iter().map(given).collect());
        }
    }

    /// Takes the values of `--fleet-authority`; none leaves the weaker sources' authorities.
    pub fn flag_authorities(&mut self, authorities: Vec<String>) {
        if !authorities.is_empty() {
            let given = |text| Given { text, place: Place::Flag("--fleet-authority") };
            self.authorities = Some(authorities.into_iter().map(given).collect());
        }
    }

    /// Takes the values of `--uplink-window`; none leaves the weaker sources' windows.
    pub fn flag_windows(&mut self, windows: Vec<String>) {
        if !windows.is_empty() {
            let given = |text| Given { text, place: Place::Flag("--uplink-window") };
            self.windows = Some(windows.into_iter().map(given).collect());
        }
    }

    /// Takes the values of `--channel` and `--releases-platform`; none leaves the weaker sources'.
    pub fn flag_releases(&mut self, channels: Vec<String>, platforms: Vec<String>) {
        let given = |flag| move |text| Given { text, place: Place::Flag(flag) };
        if !channels.is_empty() {
            self.channels = Some(channels.into_iter().map(given("--channel")).collect());
        }
        if !platforms.is_empty() {
            self.platforms = Some(platforms.into_iter().map(given("--releases-platform")).collect());
        }
    }

    /// Takes the values of `--origin`, each `REGISTRY=URL`.
    pub fn flag_origins(&mut self, origins: Vec<String>) {
        self.origins.extend(origins.iter().map(|text| assigned_origin(text, Place::Flag("--origin"))));
    }

    /// The environment's settings. A variable that is nearly the name of a known one is an error; others that begin
    /// with `LAYERMESH_` are left alone, because orchestrators make such names from a service's name.
    pub(super) fn from_variables(variables: &BTreeMap<String, String>, errors: &mut Vec<ConfigError>) -> Self {
        let mut layer = Self::default();
        let list = |name| variables.get(name).map(|text| text.split([',', ' ']).filter(|word| !word.is_empty()));
        for setting in Setting::ALL {
            let name = setting.variable();
            if let Some(text) = variables.get(name) {
                layer.values.insert(setting, Given { text: text.clone(), place: Place::Variable(name) });
            }
        }
        if let Some(peers) = list(PEERS_VARIABLE) {
            let given = |text: &str| Given { text: text.to_owned(), place: Place::Variable(PEERS_VARIABLE) };
            layer.peers = Some(peers.map(given).collect());
        }
        for (name, list_of) in [
            (CHANNELS_VARIABLE, &mut layer.channels),
            (PLATFORMS_VARIABLE, &mut layer.platforms),
            (AUTHORITIES_VARIABLE, &mut layer.authorities),
        ] {
            let given = |text: &str| Given { text: text.to_owned(), place: Place::Variable(name) };
            *list_of = list(name).map(|words| words.map(given).collect());
        }
        if let Some(windows) = variables.get(WINDOWS_VARIABLE) {
            let given = |text: &str| Given { text: text.trim().to_owned(), place: Place::Variable(WINDOWS_VARIABLE) };
            let windows = windows.split(';').map(given);
            layer.windows = Some(windows.filter(|window| !window.text.is_empty()).collect());
        }
        if let Some(origins) = list(ORIGINS_VARIABLE) {
            layer.origins.extend(origins.map(|text| assigned_origin(text, Place::Variable(ORIGINS_VARIABLE))));
        }
        let known = || {
            Setting::ALL.into_iter().map(Setting::variable).chain([
                PEERS_VARIABLE,
                AUTHORITIES_VARIABLE,
                FLEET_DIR_VARIABLE,
                WINDOWS_VARIABLE,
                CHANNELS_VARIABLE,
                PLATFORMS_VARIABLE,
                RELEASES_VARIABLE,
                ORIGINS_VARIABLE,
                CONFIG_VARIABLE,
                ADMIN_VARIABLE,
            ])
        };
        for name in variables.keys().filter(|name| known().all(|known| known != *name)) {
            let Some(suffix) = name.strip_prefix(PREFIX) else { continue };
            if let Some(meant) = nearest(suffix, known().filter_map(|known| known.strip_prefix(PREFIX))) {
                errors.push(ConfigError::new(name, format!("unknown variable; did you mean `{PREFIX}{meant}`?")));
            }
        }
        layer
    }

    /// This layer, with `stronger` winning where both say something.
    pub(super) fn overlaid(mut self, stronger: Self) -> Self {
        self.values.extend(stronger.values);
        if stronger.peers.is_some() {
            self.peers = stronger.peers;
        }
        if stronger.windows.is_some() {
            self.windows = stronger.windows;
        }
        self.authorities = stronger.authorities.or(self.authorities);
        self.channels = stronger.channels.or(self.channels);
        self.platforms = stronger.platforms.or(self.platforms);
        let registry = |origin: &RawOrigin| origin.registry.as_ref().map(|given| given.text.clone());
        self.origins.retain(|weaker| stronger.origins.iter().all(|origin| registry(origin) != registry(weaker)));
        self.origins.extend(stronger.origins);
        self.attached.extend(stronger.attached);
        self
    }
}

/// `REGISTRY=URL`. Without a `=` there is no endpoint, which validation reports.
fn assigned_origin(text: &str, place: Place) -> RawOrigin {
    let given = |text: &str| Some(Given { text: text.to_owned(), place: place.clone() });
    let (registry, endpoint) = match text.split_once('=') {
        Some((registry, endpoint)) => (given(registry), given(endpoint)),
        None => (given(text), None),
    };
    RawOrigin { registry, endpoint, ..RawOrigin::at(place.clone()) }
}

/// The candidate that was probably meant, if any is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters wrong is a typo; more is another word.
    let far = word.len().div_ceil(3);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= far.min(3))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// A mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: String,
    message: String,
}

impl ConfigError {
    pub(super) fn new(place: impl ToString, message: impl Into<String>) -> Self {
        Self { place: place.to_string(), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All mistakes in the configuration, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the configuration has a mistake\n  {one}"),
            many => {
                write!(f, "the configuration has {} mistakes", many.len())?;
                many.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}
