//! TLS 1.3 between nodes: both ends show a certificate that their node's key has signed (libp2p TLS spec 1.0).
//!
//! The library's own configurations put ChaCha20 first whatever the CPU; on a CPU with AES instructions AES-128-GCM
//! moves a fifth more for a quarter less. Hence configurations of our own around its certificates. What is fixed:
//!
//! - TLS 1.3 alone, an ALPN name of our own: other software on the port learns nothing.
//! - AES-128-GCM where this CPU has instructions for it, ChaCha20-Poly1305 where not. A server without them
//!   overrules the client's order, so the slower end decides.
//! - X25519 alone. The post-quantum hybrid adds 2 KiB and a noticeable time on small CPUs to each handshake, and
//!   would protect nothing while the control plane's Noise handshake is plain X25519.
//! - Whoever the fleet does not let in is refused in the handshake, so no request of it is read; a client certificate is
//!   demanded, since that is what says who it is.
//! - No resumption: connections are kept open instead, so a server keeps no session per peer and every
//!   connection has seen its peer's certificate.

use std::{fmt, sync::Arc};

use layermesh_proto::NodeId;
use libp2p::identity::Keypair;
use libp2p_tls::certificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite, kx_group, sign::any_ecdsa_type},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use thiserror::Error;

use crate::fleet::{Door, Fleet};

/// Name of the bulk protocol in the handshake (RFC 7301).
pub(super) const ALPN: &[u8] = b"layermesh-bulk/1";

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsSetupError {
    /// No certificate could be made for the node's key.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] certificate::GenError),
    /// The TLS library refuses the configuration.
    #[error("cannot set up TLS: {0}")]
    Config(#[from] rustls::Error),
}

/// The server's side of all connections.
pub(super) fn server_config(keypair: &Keypair, fleet: &Fleet) -> Result<Arc<ServerConfig>, TlsSetupError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(PeerVerifier { expected: None, fleet: Some(fleet.clone()) }))
        .with_cert_resolver(own_certificate(keypair)?);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = !has_aes();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The client's side, before it is known whom to expect.
#[derive(Clone)]
pub(super) struct ClientTls(ClientConfig);

impl ClientTls {
    pub(super) fn new(keypair: &Keypair) -> Result<Self, TlsSetupError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier { expected: None, fleet: None }))
            .with_client_cert_resolver(own_certificate(keypair)?);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(config))
    }

    /// A configuration whose handshake succeeds with this node alone.
    pub(super) fn expecting(&self, peer: NodeId) -> Arc<ClientConfig> {
        let mut config = self.0.clone();
        config.dangerous().set_certificate_verifier(Arc::new(PeerVerifier { expected: Some(peer), fleet: None }));
        Arc::new(config)
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

/// The node that a verified certificate chain belongs to.
pub(super) fn node_of(chain: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
    certificate_node(chain?.first()?, &[]).ok()
}

/// Whether a handshake failed since a verifier here refused the other end's node.
pub(super) fn is_refusal(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)))
}

/// What checks a certificate without expecting anybody, for clients that a node would not be.
#[cfg(test)]
pub(super) fn any_node() -> Arc<dyn ServerCertVerifier> {
    Arc::new(PeerVerifier { expected: None, fleet: None })
}

fn own_certificate(keypair: &Keypair) -> Result<Arc<SingleCertAndKey>, TlsSetupError> {
    let (certificate, key) = certificate::generate(keypair)?;
    Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], any_ecdsa_type(&key)?))))
}

/// Makes ready the source of random numbers that all TLS of this program shares. It gathers jitter when it is first
/// asked, 35 ms of a processor of 2024 and many times that of a small one, which the first pull would wait for
/// otherwise. Blocks.
///
/// # Errors
/// If the system gives none.
pub fn gather_entropy() -> Result<(), TlsSetupError> {
    Ok(aws_lc_rs::default_provider().secure_random.fill(&mut [0]).map_err(rustls::Error::from)?)
}

fn provider() -> Arc<CryptoProvider> {
    let mut suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    if !has_aes() {
        suites.reverse();
    }
    Arc::new(CryptoProvider {
        cipher_suites: suites,
        kx_groups: vec![kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// Checks that the other end is a node and, for a client, which one; for a server, that it is let in.
#[derive(Debug)]
struct PeerVerifier {
    expected: Option<NodeId>,
    /// A client asks before it connects.
    fleet: Option<Fleet>,
}

impl PeerVerifier {
    fn verify(&self, end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let found = certificate_node(end_entity, others)?;
        if self.expected.is_some_and(|expected| expected != found) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        if let Some(fleet) = &self.fleet
            && let Err(refusal) = fleet.admits(&found)
        {
            fleet.note_refused(Some(found), refusal, Door::Bulk);
            // Said to the other end as `access_denied`.
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }
}

/// Checks a certificate and says whose it is: exactly one, signed by itself, its key signed by an Ed25519 node.
fn certificate_node(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<NodeId, rustls::Error> {
    if !others.is_empty() {
        return Err(CertificateError::BadEncoding.into());
    }
    let certificate = certificate::parse(end_entity).map_err(refused)?;
    NodeId::from_peer_id_bytes(&certificate.peer_id().to_bytes()).map_err(refused)
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    certificate::parse(certificate)
        .map_err(refused)?
        .verify_signature(signed.scheme, message, signed.signature())
        .map_err(refused)?;
    Ok(HandshakeSignatureValid::assertion())
}

/// TLS 1.2 is not configured; should it ever be, its signatures do not count.
fn no_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken here".to_owned())
}

/// Nodes make P-256 certificates; the spec lets other implementations take Ed25519.
const SCHEMES: [SignatureScheme; 2] = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519];

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}
