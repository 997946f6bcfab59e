//! TLS 1.3 with this cluster's certificates and no others: 1.2, early data and session tickets are off. Who a peer is, is its URI name,
//! whatever address or name it is reached by.

use super::admission::Admission;
use super::{ALPN, ALPN_FORMER, ALPN_JOIN, ALPN_PEER, ALPN_PEER_FORMER, LinkError};
use crate::Digest;
use crate::identity::certificate::{Facts, now_s};
use crate::identity::{Identity, Subject};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;

/// How far a certificate's first moment may lie ahead: machines without a clock of their own start with a wrong one.
const SKEW: Duration = Duration::from_secs(600);
/// Most certificates above a peer's own: the intermediate's and the root's, and one more while a root is replaced.
const ABOVE_MAX: usize = 3;
/// What a master is called in the handshake: a name must stand there, and nobody looks at it.
pub(super) const SERVER_NAME: &str = "skep";

/// What a peer's certificate says, once it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub subject: Subject,
    pub is_expired: bool,
}

/// Who is at the other end of `connection`; `None` where it showed no certificate. What stands there was verified in the handshake.
pub(super) fn peer(connection: &quinn::Connection) -> Option<Peer> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let facts = Facts::of(chain.first()?).ok()?;
    Some(Peer { subject: facts.subject?, is_expired: facts.is_expired(now_s()) })
}

/// How many certificates the other end has shown.
#[cfg(test)]
pub(super) fn shown(connection: &quinn::Connection) -> usize {
    let chain = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.map_or(0, |chain| chain.len())
}

/// The protocol that was agreed on.
pub(super) fn protocol(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?.protocol
}

/// Makes ring the process's cryptography, for clients that look for one there (HTTP). The first call counts; harmless when said again.
pub fn install_crypto() {
    // An error says that one is there already, which is what was wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// ring's, with AES-128 first: its key schedule hashes with SHA-256, for which processors have instructions, and not with SHA-384.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn tls_error(error: impl ToString) -> LinkError {
    LinkError::Tls { reason: error.to_string() }
}

fn roots(root_der: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root_der.to_vec()))?;
    Ok(roots)
}

/// The root, and what stands between it and this identity's own certificate: the same for most of a cluster, and verified when the identity was
/// made. A handshake need not verify it again; that it ends is seen by the peer's own certificate, which does not hold longer.
fn anchors(identity: &Identity) -> Result<RootCertStore, Error> {
    let mut roots = roots(identity.root_der())?;
    let above = identity.chain_der().len().saturating_sub(1);
    for der in identity.chain_der()[..above].iter().skip(1) {
        roots.add(CertificateDer::from(der.clone()))?;
    }
    Ok(roots)
}

fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
    identity.chain_der().iter().map(|der| CertificateDer::from(der.clone())).collect()
}

/// For who has the root.
fn chain_below_root(identity: &Identity) -> Vec<CertificateDer<'static>> {
    let mut chain = chain(identity);
    chain.truncate(chain.len().saturating_sub(1).max(1));
    chain
}

fn key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(identity.key_pkcs8_der().to_vec()).into()
}

/// The identity's key with each of these chains.
fn certified(
    identity: &Identity,
    provider: &CryptoProvider,
    chains: [Vec<CertificateDer<'static>>; 2],
) -> Result<[Arc<CertifiedKey>; 2], Error> {
    let signing = provider.key_provider.load_private_key(key(identity))?;
    Ok(chains.map(|chain| Arc::new(CertifiedKey::new(chain, Arc::clone(&signing)))))
}

/// What a master shows: the root goes along to a machine that joins, which knows only its digest.
#[derive(Debug)]
struct Shown {
    to_strangers: Arc<CertifiedKey>,
    to_known: Arc<CertifiedKey>,
}

impl Shown {
    fn new(identity: &Identity, provider: &CryptoProvider) -> Result<Self, Error> {
        let [to_strangers, to_known] = certified(identity, provider, [chain(identity), chain_below_root(identity)])?;
        Ok(Self { to_strangers, to_known })
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let joins = hello.alpn().is_some_and(|mut spoken| spoken.any(|protocol| protocol == ALPN_JOIN));
        Some(Arc::clone(if joins { &self.to_strangers } else { &self.to_known }))
    }
}

/// What a master knows already, as a name of an authority in its request for a certificate (RFC 8446, section 4.2.4): the SHA-256 of the
/// intermediate's certificate, in hexadecimal digits, as a common name. Whoever was signed by that one need not show it, and a master with ten
/// thousand agents need not keep it for each.
fn known_name(identity: &Identity) -> Option<DistinguishedName> {
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    const UTF8: u8 = 0x0c;
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    let digits = Digest::of(identity.chain_der().get(1)?).to_string().into_bytes();
    let value = der(UTF8, &digits)?;
    let attribute = der(SEQUENCE, &[&COMMON_NAME[..], &value].concat())?;
    Some(DistinguishedName::in_sequence(&der(SET, &attribute)?))
}

/// A DER value of less than 128 bytes.
fn der(tag: u8, value: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(value.len()).ok().filter(|length| *length < 0x80)?;
    Some([&[tag, length], value].concat())
}

/// What an agent or another master shows: its own certificate alone to who knows the one above.
#[derive(Debug)]
struct Showing {
    whole: Arc<CertifiedKey>,
    own: Arc<CertifiedKey>,
    above: Option<DistinguishedName>,
}

impl Showing {
    fn new(identity: &Identity, provider: &CryptoProvider) -> Result<Self, Error> {
        let own = chain(identity).into_iter().take(1).collect();
        let [whole, own] = certified(identity, provider, [chain_below_root(identity), own])?;
        Ok(Self { whole, own, above: known_name(identity) })
    }
}

impl ResolvesClientCert for Showing {
    fn resolve(&self, known: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let is_known = self.above.as_ref().is_some_and(|above| known.contains(&above.as_ref()));
        Some(Arc::clone(if is_known { &self.own } else { &self.whole }))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A master's side.
pub(super) fn server(identity: &Identity, admission: Arc<Admission>) -> Result<QuicServerConfig, LinkError> {
    let provider = provider();
    let roots = Arc::new(anchors(identity).map_err(tls_error)?);
    let shown = Shown::new(identity, &provider).map_err(tls_error)?;
    let webpki = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().map_err(tls_error)?;
    let verifier =
        PeerVerifier { webpki, cluster: identity.cluster().into(), known: known_name(identity).into_iter().collect(), admission };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(shown));
    // Of those that the other side speaks too, the first is taken.
    config.alpn_protocols = [ALPN, ALPN_FORMER, ALPN_JOIN, ALPN_PEER, ALPN_PEER_FORMER].map(<[u8]>::to_vec).to_vec();
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    QuicServerConfig::try_from(config).map_err(tls_error)
}

/// Whom an agent, or one that wants to be one, takes for a master.
pub(super) enum Trust<'a> {
    /// Who has a certificate of this identity's cluster; shown this identity.
    Known(&'a Identity),
    /// Who shows a root with this digest; shown nothing.
    Pinned(Digest),
    /// Who leads to this root; shown any identity, with this many certificates above its own, or none.
    #[cfg(test)]
    Mixed { shown: Option<(&'a Identity, usize)>, root_der: &'a [u8] },
}

/// An agent's side: `alpn`, and the version before where it has one.
pub(super) fn client(trust: &Trust<'_>, alpn: &[u8]) -> Result<QuicClientConfig, LinkError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let anchor = match trust {
        Trust::Known(identity) => Anchor::Root { roots: anchors(identity).map_err(tls_error)?, cluster: identity.cluster().into() },
        Trust::Pinned(digest) => Anchor::Digest(*digest),
        #[cfg(test)]
        Trust::Mixed { root_der, .. } => Anchor::Root {
            roots: roots(root_der).map_err(tls_error)?,
            cluster: facts(&CertificateDer::from(*root_der)).map_err(tls_error)?.cluster,
        },
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(MasterVerifier { anchor, algorithms }));
    let mut config = match trust {
        #[cfg(test)]
        Trust::Mixed { shown: Some((identity, above)), .. } => {
            let mut chain = chain(identity);
            chain.resize(above + 1, chain[2].clone());
            builder.with_client_auth_cert(chain, key(identity)).map_err(tls_error)?
        }
        Trust::Known(identity) => builder.with_client_cert_resolver(Arc::new(Showing::new(identity, &provider).map_err(tls_error)?)),
        Trust::Pinned(_) => builder.with_no_client_auth(),
        #[cfg(test)]
        Trust::Mixed { shown: None, .. } => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match alpn {
        ALPN => vec![ALPN.to_vec(), ALPN_FORMER.to_vec()],
        ALPN_PEER => vec![ALPN_PEER.to_vec(), ALPN_PEER_FORMER.to_vec()],
        alpn => vec![alpn.to_vec()],
    };
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(tls_error)
}

/// `check` at `now`; where that is too early, with the clock put forward by [`SKEW`].
fn with_skew<T>(now: UnixTime, check: impl Fn(UnixTime) -> Result<T, Error>) -> Result<T, Error> {
    use CertificateError::{NotValidYet, NotValidYetContext};
    match check(now) {
        Err(Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. })) => {
            check(UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()).saturating_add(SKEW)))
        }
        result => result,
    }
}

fn denied() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, Error> {
    Facts::of(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Takes masters of this cluster, and agents that are not revoked, expired ones too: those may only renew. Who may say what is seen to after
/// the handshake.
#[derive(Debug)]
struct PeerVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    cluster: String,
    known: Vec<DistinguishedName>,
    admission: Arc<Admission>,
}

impl PeerVerifier {
    fn subject(&self, certificate: &CertificateDer<'_>) -> Result<(Subject, Facts), Error> {
        let facts = facts(certificate)?;
        match facts.subject {
            Some(subject) if facts.cluster == self.cluster => Ok((subject, facts)),
            _ => Err(denied()),
        }
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.known
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if above.len() > ABOVE_MAX {
            return Err(denied());
        }
        let check = |now| self.webpki.verify_client_cert(own, above, now);
        let verified = with_skew(now, check);
        let (subject, facts) = self.subject(own)?;
        let Subject::Agent(agent) = subject else { return verified };
        if self.admission.is_revoked(agent) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        match verified {
            // No certificate holds longer than the ones above it, so all is judged as of its own last moment.
            Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
                if facts.is_expired(now.as_secs()) =>
            {
                check(UnixTime::since_unix_epoch(Duration::from_secs(facts.not_after_s)))
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// What a master's certificate must lead to.
#[derive(Debug)]
enum Anchor {
    Root { roots: RootCertStore, cluster: String },
    Digest(Digest),
}

/// Takes masters of one cluster.
#[derive(Debug)]
struct MasterVerifier {
    anchor: Anchor,
    algorithms: WebPkiSupportedAlgorithms,
}

impl MasterVerifier {
    fn verify(&self, own: &CertificateDer<'_>, above: &[CertificateDer<'_>], roots: &RootCertStore, now: UnixTime) -> Result<(), Error> {
        let certificate = ParsedCertificate::try_from(own)?;
        with_skew(now, |now| verify_server_cert_signed_by_trust_anchor(&certificate, roots, above, now, self.algorithms.all))
    }
}

impl ServerCertVerifier for MasterVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if above.len() > ABOVE_MAX {
            return Err(denied());
        }
        let cluster = match &self.anchor {
            Anchor::Root { roots, cluster } => {
                self.verify(own, above, roots, now)?;
                cluster.clone()
            }
            Anchor::Digest(digest) => {
                let pinned = above.iter().find(|der| Digest::of(der) == *digest);
                let root = pinned.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                self.verify(own, above, &roots(root)?, now)?;
                facts(root)?.cluster
            }
        };
        let facts = facts(own)?;
        let is_master = matches!(facts.subject, Some(Subject::Master(_))) && facts.cluster == cluster;
        if is_master { Ok(ServerCertVerified::assertion()) } else { Err(denied()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
