//! Where things are when nobody says.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::layer::{ADMIN_VARIABLE, CONFIG_VARIABLE};

/// Data directory of a node that runs as a system service.
pub const SYSTEM_DATA_DIR: &str = "/var/lib/layermesh";
/// Configuration file of a node that runs as a system service.
pub const SYSTEM_CONFIG_FILE: &str = "/etc/layermesh/layermesh.toml";

/// What the default data directory depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataDirInputs {
    /// Whether this user can write or create [`SYSTEM_DATA_DIR`].
    pub system_writable: bool,
    /// `$XDG_DATA_HOME`, if set.
    pub xdg_data_home: Option<PathBuf>,
    /// `$HOME`, if set.
    pub home: Option<PathBuf>,
}

/// The data directory when nobody says: the system's if writable, else the user's; `None` for a user without a home.
pub fn default_data_dir(inputs: &DataDirInputs) -> Option<PathBuf> {
    if inputs.system_writable {
        return Some(PathBuf::from(SYSTEM_DATA_DIR));
    }
    // XDG base directory specification: relative paths are ignored.
    let data_home = inputs.xdg_data_home.clone().filter(|path| path.is_absolute());
    data_home.or_else(|| Some(inputs.home.as_ref()?.join(".local/share"))).map(|path| path.join("layermesh"))
}

/// What the configuration takes from the process's surroundings; a value, so that tests need not change theirs.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// Whether this user can write or create [`SYSTEM_DATA_DIR`].
    pub system_writable: bool,
}

impl Environment {
    /// That of this process.
    pub fn current() -> Self {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let system = Path::new(SYSTEM_DATA_DIR);
        let asked = if system.exists() { Some(system) } else { system.parent() };
        let system_writable = asked.is_some_and(|dir| access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok());
        Self { variables, system_writable }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The data directory when nobody says.
    pub fn default_data_dir(&self) -> Option<PathBuf> {
        default_data_dir(&DataDirInputs {
            system_writable: self.system_writable,
            xdg_data_home: self.path("XDG_DATA_HOME"),
            home: self.path("HOME"),
        })
    }

    /// The admin socket that `LAYERMESH_ADMIN` names.
    pub fn admin_socket(&self) -> Option<PathBuf> {
        self.path(ADMIN_VARIABLE)
    }

    /// Only what says whose home this is: a node of this user that is told nothing.
    pub fn home_only(&self) -> BTreeMap<String, String> {
        let names = ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"];
        let kept = |name: &str| Some((name.to_owned(), self.variables.get(name)?.clone()));
        names.into_iter().filter_map(kept).collect()
    }

    /// The configuration file to read: the one that was asked for, which must then exist, else a default one that does.
    pub fn config_file(&self, asked: Option<&Path>) -> Option<PathBuf> {
        if let Some(path) = asked {
            return Some(path.to_owned());
        }
        if let Some(path) = self.path(CONFIG_VARIABLE) {
            return Some(path);
        }
        let config_home = self.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let config_home = config_home.or_else(|| Some(self.path("HOME")?.join(".config")));
        let user = config_home.map(|home| home.join("layermesh/layermesh.toml"));
        [Some(PathBuf::from(SYSTEM_CONFIG_FILE)), user].into_iter().flatten().find(|path| path.exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_directory_if_writable_then_xdg_then_home() {
        let inputs = |system_writable, xdg: Option<&str>, home: Option<&str>| DataDirInputs {
            system_writable,
            xdg_data_home: xdg.map(PathBuf::from),
            home: home.map(PathBuf::from),
        };
        let dir = |inputs| default_data_dir(&inputs).map(|path| path.display().to_string());
        assert_eq!(dir(inputs(true, Some("/x"), Some("/h"))).as_deref(), Some("/var/lib/layermesh"));
        assert_eq!(dir(inputs(false, Some("/x"), Some("/h"))).as_deref(), Some("/x/layermesh"));
        assert_eq!(dir(inputs(false, Some("relative"), Some("/h"))).as_deref(), Some("/h/.local/share/layermesh"));
        assert_eq!(dir(inputs(false, None, Some("/h"))).as_deref(), Some("/h/.local/share/layermesh"));
        assert_eq!(dir(inputs(false, None, None)), None);
    }
}
