//! The first words on every connection: after Noise has proved both keys, each side shows its credential, and only if
//! both are let in does the stream go on to the muxer.
//!
//! Invariant: whoever is refused has seen TCP, Noise and a refusal: no muxer, and none of the protocols behind it. The
//! dialling side shows its credential first, which costs no round trip more, since it also ends the Noise handshake; so
//! whoever dials a node learns nothing of it before being let in.
//!
//! A frame is a version, a kind, the length of its body (two bytes, the higher first), and the body: the sender's
//! credential, empty if it has none, or the number of a [`Refusal`]. Nodes of an open fleet send empty ones. Stopping
//! here costs a stranger nothing and this node a millisecond, so what may be under way at once is bounded by the
//! connection limits, and each has a deadline.

use std::{future::Future, io, iter, pin::Pin, time::Duration};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use layermesh_proto::{NodeId, wire::fleet::CREDENTIAL_BYTES_MAX};
use libp2p::{
    PeerId,
    core::{
        UpgradeInfo,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    identity::Keypair,
    noise,
};
use thiserror::Error;
use tokio::time::timeout;

use super::node_id;
use crate::fleet::{Door, Fleet, Refusal};

/// What the handshake is called: other software does not even get to Noise.
pub(super) const PROTOCOL: &str = "/layermesh/admission/1";
/// Version of the frames.
const VERSION: u8 = 1;
/// A frame with the sender's credential.
const CREDENTIAL: u8 = 0;
/// A frame with the reason of a refusal.
const REFUSED: u8 = 1;
/// For both frames. They take one round trip and the checking of three signatures; a small CPU under load gets time.
/// Less than libp2p gives a whole handshake (10 s).
const ADMISSION_TIME_MAX: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum AdmissionError {
    /// Noise failed.
    #[error(transparent)]
    Noise(#[from] noise::Error),
    /// The connection broke off.
    #[error("the connection broke off: {0}")]
    Io(#[from] io::Error),
    /// The peer is not let in.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The peer does not let this node in.
    #[error("the peer refuses this node: {0}")]
    RefusedBy(Refusal),
}

/// Whether an error has to do with admission.
pub(super) fn is_of_admission(error: &(dyn std::error::Error + 'static)) -> bool {
    iter::successors(Some(error), |error| error.source()).any(|error| error.is::<AdmissionError>())
}

/// The handshake.
#[derive(Clone)]
pub(super) struct Admission {
    noise: noise::Config,
    fleet: Fleet,
}

impl Admission {
    pub(super) fn new(keypair: &Keypair, fleet: Fleet) -> Result<Self, noise::Error> {
        Ok(Self { noise: noise::Config::new(keypair)?, fleet })
    }

    /// Who does not come through Noise has no id.
    fn proved<T>(fleet: &Fleet, handshake: Result<T, noise::Error>) -> Result<T, AdmissionError> {
        handshake.map_err(|error| {
            fleet.note_refused(None, Refusal::Broken, Door::Swarm);
            error.into()
        })
    }

    async fn bounded<T>(
        fleet: Fleet,
        peer: PeerId,
        exchange: impl Future<Output = Result<T, AdmissionError>>,
    ) -> Result<T, AdmissionError> {
        match timeout(ADMISSION_TIME_MAX, exchange).await {
            Ok(Err(AdmissionError::Io(error))) => {
                fleet.note_refused(node_id(&peer), Refusal::Broken, Door::Swarm);
                Err(error.into())
            }
            Ok(ended) => ended,
            Err(_) => {
                fleet.note_refused(node_id(&peer), Refusal::Slow, Door::Swarm);
                Err(AdmissionError::Refused(Refusal::Slow))
            }
        }
    }
}

impl UpgradeInfo for Admission {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(PROTOCOL)
    }
}

type Upgraded<T> = Pin<Box<dyn Future<Output = Result<(PeerId, noise::Output<T>), AdmissionError>> + Send>>;

impl<T> InboundConnectionUpgrade<T> for Admission
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, noise::Output<T>);
    type Error = AdmissionError;
    type Future = Upgraded<T>;

    fn upgrade_inbound(self, socket: T, info: Self::Info) -> Self::Future {
        let Self { noise, fleet } = self;
        let handshake = noise.upgrade_inbound(socket, info);
        Box::pin(async move {
            let (peer, mut io) = Self::proved(&fleet, handshake.await)?;
            Self::bounded(fleet.clone(), peer, answer(&fleet, peer, &mut io)).await?;
            Ok((peer, io))
        })
    }
}

impl<T> OutboundConnectionUpgrade<T> for Admission
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, noise::Output<T>);
    type Error = AdmissionError;
    type Future = Upgraded<T>;

    fn upgrade_outbound(self, socket: T, info: Self::Info) -> Self::Future {
        let Self { noise, fleet } = self;
        let handshake = noise.upgrade_outbound(socket, info);
        Box::pin(async move {
            let (peer, mut io) = handshake.await?;
            Self::bounded(fleet.clone(), peer, ask(&fleet, peer, &mut io)).await?;
            Ok((peer, io))
        })
    }
}

/// The listening side: hears first, and shows itself only to who is let in.
async fn answer<S>(fleet: &Fleet, peer: PeerId, io: &mut S) -> Result<(), AdmissionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let credential = match read_frame(io).await? {
        Frame::Credential(credential) => credential,
        Frame::Refused(_) => return Err(nonsense().into()),
    };
    match node_of(&peer).and_then(|node| fleet.admit(node, &credential)) {
        Ok(()) => Ok(write_frame(io, CREDENTIAL, &fleet.credential()).await?),
        Err(refusal) => {
            // Whether or not it gets to know why.
            if write_frame(io, REFUSED, &[refusal as u8]).await.is_ok() {
                let _ = io.close().await;
            }
            Err(AdmissionError::Refused(refusal))
        }
    }
}

/// The dialling side.
async fn ask<S>(fleet: &Fleet, peer: PeerId, io: &mut S) -> Result<(), AdmissionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let node = node_of(&peer).map_err(AdmissionError::Refused)?;
    write_frame(io, CREDENTIAL, &fleet.credential()).await?;
    match read_frame(io).await? {
        Frame::Credential(credential) => fleet.admit(node, &credential).map_err(AdmissionError::Refused),
        Frame::Refused(refusal) => {
            fleet.note_refused_by(node, refusal);
            Err(AdmissionError::RefusedBy(refusal))
        }
    }
}

/// Keys of other kinds are no nodes'.
fn node_of(peer: &PeerId) -> Result<NodeId, Refusal> {
    node_id(peer).ok_or(Refusal::Malformed)
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Credential(Vec<u8>),
    Refused(Refusal),
}

async fn write_frame<S: AsyncWrite + Unpin>(io: &mut S, kind: u8, body: &[u8]) -> io::Result<()> {
    let len = u16::try_from(body.len()).map_err(|_| nonsense())?;
    let mut frame = vec![VERSION, kind];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(body);
    io.write_all(&frame).await?;
    io.flush().await
}

async fn read_frame<S: AsyncRead + Unpin>(io: &mut S) -> io::Result<Frame> {
    let mut head = [0; 4];
    io.read_exact(&mut head).await?;
    let [version, kind, high, low] = head;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if version != VERSION || len > CREDENTIAL_BYTES_MAX {
        return Err(nonsense());
    }
    let mut body = vec![0; len];
    io.read_exact(&mut body).await?;
    match (kind, body.as_slice()) {
        (CREDENTIAL, _) => Ok(Frame::Credential(body)),
        (REFUSED, &[code]) => Refusal::of_code(code).map(Frame::Refused).ok_or_else(nonsense),
        _ => Err(nonsense()),
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the other end says is no admission of this version")
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Frame> {
        block_on(read_frame(&mut Cursor::new(bytes)))
    }

    fn written(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        block_on(write_frame(&mut bytes, kind, body)).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn frames_come_back_and_other_versions_kinds_and_lengths_do_not() {
        assert_eq!(read(&written(CREDENTIAL, b"abc")).unwrap(), Frame::Credential(b"abc".to_vec()));
        assert_eq!(read(&written(CREDENTIAL, &[])).unwrap(), Frame::Credential(vec![]));
        for refusal in Refusal::ALL {
            assert_eq!(read(&written(REFUSED, &[refusal as u8])).unwrap(), Frame::Refused(refusal));
        }
        let mut other_version = written(CREDENTIAL, &[]);
        other_version[0] = 2;
        assert!(read(&other_version).is_err());
        for wrong in [written(2, &[]), written(REFUSED, &[]), written(REFUSED, &[0]), written(REFUSED, &[1, 1])] {
            assert!(read(&wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&written(CREDENTIAL, &vec![0; CREDENTIAL_BYTES_MAX])).is_ok());
        assert!(read(&written(CREDENTIAL, &vec![0; CREDENTIAL_BYTES_MAX + 1])).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_frame_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Frame::Credential(body)) = read(&bytes) {
                prop_assert_eq!(&bytes[4..4 + body.len()], body.as_slice());
            }
        }
    }
}
