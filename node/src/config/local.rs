//! Who on the device, or near it, may ask the node: at its mirror and at its admin socket.

use std::{net::SocketAddr, path::PathBuf};

use nix::unistd::{Gid, Group};

use super::{
    Credentials,
    layer::{Given, Setting},
    validate::Validator,
};

/// What the mirror demands of those who ask it. On loopback usually nothing.
#[derive(Debug, Clone, Default)]
pub struct MirrorAccessConfig {
    /// Files in PEM with which it speaks TLS: certificates, its own first, and the key of that.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What everybody who asks has to say (RFC 7617).
    pub credentials: Option<Credentials>,
}

/// Where admin commands reach the node, and whose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminConfig {
    /// The socket; in the data directory if absent.
    pub socket: Option<PathBuf>,
    /// Whose members may use it besides the node's own user.
    pub group: Option<Gid>,
}

impl Validator {
    pub(super) fn mirror_access(&mut self, address: SocketAddr) -> MirrorAccessConfig {
        let given = |setting| self.layer.values.get(&setting).cloned();
        let names =
            [Setting::MirrorCertificate, Setting::MirrorKey, Setting::MirrorUsername, Setting::MirrorPasswordFile];
        let [certificate, key, username, password] = names.map(given);
        let tls = match (&certificate, &key) {
            (Some(certificate), Some(key)) => self.existing_file(certificate).zip(self.existing_file(key)),
            (Some(alone), None) => {
                self.error(&alone.place, "a certificate needs its `key` beside it");
                None
            }
            (None, Some(alone)) => {
                self.error(&alone.place, "a key needs its `certificate` beside it");
                None
            }
            (None, None) => None,
        };
        let credentials = self.credentials(username.as_ref(), password.as_ref());
        if let (Some(name), None) = (&username, &certificate)
            && !address.ip().is_loopback()
        {
            let message = format!(
                "without TLS the password crosses the network for all to read: add `certificate` and `key`, or listen on \
                 127.0.0.1:{}",
                address.port()
            );
            self.error(&name.place, message);
        }
        MirrorAccessConfig { tls, credentials }
    }

    pub(super) fn admin(&mut self) -> AdminConfig {
        AdminConfig {
            socket: self.layer.values.get(&Setting::AdminSocket).map(Given::path),
            group: self.value(Setting::AdminGroup, parse_group),
        }
    }
}

/// A group by its name or number.
fn parse_group(text: &str) -> Result<Gid, String> {
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => text.parse().map(Gid::from_raw).map_err(|_| {
            format!(
                "there is no group `{text}` on this device: make it with `groupadd --system {text}`, or name another"
            )
        }),
        Err(error) => Err(format!("cannot look up the group `{text}`: {error}")),
    }
}
