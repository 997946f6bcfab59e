//! Who misbehaves: an agent with a real certificate that says what it likes, over the link or as bare bytes; and random bytes that are the
//! same in each run. Knows no case.

use crate::cluster::{Cluster, PATIENCE};
use protocol::identity::{Identity, JoinToken, csr};
use protocol::link::{self, Connection, LinkError, Receiver, Sender};
use protocol::message::{Hello, HelloReply, JoinReply, ToAgent, ToShard, shard_of_agent};
use protocol::{AgentId, AgentInfo, AttemptId, Device, FromAgent, FromMaster, Name, Resources, ShardId, Time, frame};
use std::net::SocketAddr;
use std::sync::Arc;

/// xorshift64* (Vigna, 2016): bytes that are the same in each run.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 32) as usize % end
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 56) as u8).collect()
    }
}

/// Waits for what must come, and gives up where it does not.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not after {PATIENCE:?}"))
}

/// An agent that joined as all do.
pub struct Villain {
    pub identity: Identity,
    pub id: AgentId,
    pub shard: ShardId,
    pub shards: u16,
    pub master: SocketAddr,
}

impl Villain {
    pub async fn join(cluster: &Cluster) -> Self {
        link::install_crypto();
        let token: JoinToken = cluster.text(&["tokens", "create", "--level", "join"]).trim().parse().unwrap();
        let master = cluster.quic.parse().unwrap();
        let (key, request) = csr().unwrap();
        let JoinReply::Welcome { agent: id, chain_der, shards } = link::join(master, &token, request).await.unwrap() else {
            panic!("a good token takes in one agent");
        };
        let identity = Identity::new(chain_der, key).unwrap();
        Self { identity, id, shard: shard_of_agent(id, shards), shards, master }
    }

    pub async fn connect(&self) -> Connection {
        link::connect(self.master, &self.identity).await.unwrap()
    }

    /// Connects and says hello.
    pub async fn enter(&self) -> Wire {
        let connection = self.connect().await;
        let (mut sender, mut receiver) = connection.open_control().await.unwrap();
        sender.send(&Hello { version: "villain".into() }).await.unwrap();
        soon("the answer to a hello", receiver.next::<HelloReply>()).await.unwrap().unwrap();
        Wire { connection, sender, receiver, shard: self.shard, session: 0 }
    }

    /// Connects, registers as an agent that holds nothing, and beats.
    pub async fn take_office(&self, info: AgentInfo) -> Wire {
        let mut wire = self.enter().await;
        wire.register(info).await;
        wire.say(FromAgent::Report { session: 0, held: vec![], last: true }).await.unwrap();
        wire.beat().await;
        wire
    }

    /// Its own QUIC connection, with windows of this many bytes in which the master may send.
    pub async fn bare(&self, window_bytes: u32) -> quinn::Connection {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = self.identity.chain_der().iter().map(|der| der.clone().into()).collect();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(self.identity.key_pkcs8_der().to_vec());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_client_auth_cert(chain, key.into())
            .unwrap();
        tls.alpn_protocols = vec![link::ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(window_bytes.into()).receive_window(window_bytes.into());
        transport.keep_alive_interval(Some(std::time::Duration::from_secs(1)));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.connect_with(config, self.master, "skep").unwrap().await.unwrap()
    }

    /// The bytes of a message to its own shard.
    pub fn bytes(&self, message: FromAgent) -> Vec<u8> {
        let mut bytes = vec![];
        frame::encode(&ToShard { shard: self.shard, message }, &mut bytes).unwrap();
        bytes
    }
}

/// The bytes of a hello.
pub fn hello() -> Vec<u8> {
    let mut bytes = vec![];
    frame::encode(&Hello { version: "villain".into() }, &mut bytes).unwrap();
    bytes
}

/// A connection past its hello.
pub struct Wire {
    pub connection: Connection,
    pub sender: Sender,
    pub receiver: Receiver,
    pub shard: ShardId,
    pub session: u64,
}

impl Wire {
    /// Says something to its own shard.
    pub async fn say(&mut self, message: FromAgent) -> Result<(), LinkError> {
        let shard = self.shard;
        self.say_to(shard, message).await
    }

    pub async fn say_to(&mut self, shard: ShardId, message: FromAgent) -> Result<(), LinkError> {
        self.sender.send(&ToShard { shard, message }).await
    }

    /// The next thing that the master says; an error where it has closed.
    pub async fn hear(&mut self) -> Result<FromMaster, LinkError> {
        let said = soon("a word of the master", self.receiver.next::<ToAgent>()).await?;
        said.map(|said| said.message).ok_or(LinkError::Truncated { have: 0 })
    }

    /// What the master says until `pick` picks something of it.
    pub async fn hear_until<T>(&mut self, pick: impl Fn(&FromMaster) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(&self.hear().await.unwrap()) {
                return picked;
            }
        }
    }

    pub async fn register(&mut self, info: AgentInfo) {
        self.say(FromAgent::Register { info, incarnation: 1, number: 1 }).await.unwrap();
        self.session = self.hear_until(|said| if let FromMaster::Registered { session, .. } = said { Some(*session) } else { None }).await;
    }

    /// Beats, and waits until that was heard: all that was said before to the agent's own shard has been handled then.
    pub async fn beat(&mut self) {
        self.say(beat(self.session)).await.unwrap();
        self.hear_until(|said| matches!(said, FromMaster::BeatAck { .. }).then_some(())).await;
    }

    /// The attempts of the next launch, of all that come.
    pub async fn launched(&mut self) -> Vec<AttemptId> {
        let launched = |said: &FromMaster| match said {
            FromMaster::Launch(launch) => Some((launch.job, launch.attempts.clone())),
            _ => None,
        };
        let (job, attempts) = self.hear_until(launched).await;
        attempts.into_iter().map(|(index, number)| AttemptId::new(job, index, number)).collect()
    }

    /// Reads on until the master has closed; says why it did.
    pub async fn ended(&mut self) -> LinkError {
        loop {
            if let Err(error) = self.hear().await {
                return match error {
                    LinkError::Truncated { .. } | LinkError::Reset => soon("the end of a connection", self.connection.closed()).await,
                    error => error,
                };
            }
        }
    }
}

/// A beat of an agent that holds nothing.
pub fn beat(session: u64) -> FromAgent {
    FromAgent::Beat { session, sent: Time(1), held: 0, held_hash: 0 }
}

/// An agent of this name with next to nothing, and `bait` devices of a kind that no other has.
pub fn info(name: &str, bait: u64) -> AgentInfo {
    let devices = if bait == 0 { vec![] } else { vec![Device { name: Name::new("bait").unwrap(), milli: bait * 1_000 }] };
    let capacity = Resources { cpu_milli: bait.max(1), memory_bytes: bait.max(1) << 20, devices, ..Resources::NONE };
    AgentInfo { name: name.into(), capacity, version: "villain".into(), ..AgentInfo::default() }
}

/// Takes anybody for a master.
#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
