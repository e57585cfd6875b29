//! Which node a command talks to.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Failure, Global};
use crate::{
    admin::{
        client::AdminClient,
        run_file::{ADMIN_SOCKET, RunFile},
    },
    config::{Environment, SYSTEM_DATA_DIR, find_admin_socket, find_data_dir},
};

/// The admin API of the node that the flags, the environment or the configuration name.
pub(super) fn client(global: &Global) -> Result<AdminClient, Failure> {
    let environment = Environment::current();
    let named = global.admin.clone().or_else(|| environment.admin_socket());
    // A data directory that is named means the node there, whatever the configuration says of another.
    let named = named.or_else(|| global.data_dir.is_none().then(|| find_admin_socket(&environment))?);
    let socket = match named {
        Some(socket) => socket,
        None => {
            let dir = find_data_dir(global.data_dir.clone(), &environment)
                .context("there is no home directory to look for a node in: name its data directory with --data-dir")
                .map_err(Failure::usage)?;
            socket_of(&dir, global.data_dir.is_none().then(|| Path::new(SYSTEM_DATA_DIR)))
        }
    };
    Ok(AdminClient::new(&socket))
}

/// The socket of the node in `dir`. If no node was ever there, that of the system's node is a better guess.
fn socket_of(dir: &Path, system: Option<&Path>) -> PathBuf {
    let usual = dir.join(ADMIN_SOCKET);
    match RunFile::read(dir) {
        Ok(run) => run.admin,
        Err(_) if usual.exists() => usual,
        Err(_) => system.map(|dir| dir.join(ADMIN_SOCKET)).filter(|socket| socket.exists()).unwrap_or(usual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_file_then_the_usual_place_then_the_systems() {
        let (dir, system) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let usual = dir.path().join(ADMIN_SOCKET);
        assert_eq!(socket_of(dir.path(), Some(system.path())), usual);
        std::fs::write(system.path().join(ADMIN_SOCKET), "").unwrap();
        assert_eq!(socket_of(dir.path(), Some(system.path())), system.path().join(ADMIN_SOCKET));
        assert_eq!(socket_of(dir.path(), None), usual);
        std::fs::write(&usual, "").unwrap();
        assert_eq!(socket_of(dir.path(), Some(system.path())), usual);
        let run = r#"{"pid":1,"peer_id":"x","version":"0","mirror":"127.0.0.1:1","peers":[],"bulk":"127.0.0.1:2",
            "status":"127.0.0.1:3","admin":"/elsewhere.sock"}"#;
        std::fs::write(dir.path().join("run.json"), run).unwrap();
        assert_eq!(socket_of(dir.path(), None), Path::new("/elsewhere.sock"));
    }
}
