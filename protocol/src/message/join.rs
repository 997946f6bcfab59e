//! How a machine without a certificate asks for one, and what it is answered.

use super::{CHAIN_LENGTH_MAX, MASTERS_MAX};
use crate::{AgentId, bounded};
use serde::{Deserialize, Serialize};

/// What a machine without a certificate may say, on a connection that allows nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Join {
    /// Take me in.
    Token {
        /// The token's id.
        id: String,
        /// The token's secret.
        secret: String,
        /// A certificate signing request, DER (RFC 2986).
        csr_der: Vec<u8>,
    },
    /// Give me a new certificate: on a connection with my present one, which may have expired.
    Renew {
        /// A certificate signing request, DER (RFC 2986).
        csr_der: Vec<u8>,
    },
    /// Take me in as a master.
    Master {
        /// The token's id.
        id: String,
        /// The token's secret.
        secret: String,
        /// Where it listens for masters and agents: `HOST:PORT`.
        quic: String,
        /// Where it serves HTTP: a URL.
        http: String,
    },
}

/// The answer to a [`Join`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinReply {
    /// Welcome.
    Welcome {
        /// Who you are from now on.
        agent: AgentId,
        /// Your certificate and those up to the root, DER, your own first.
        #[serde(deserialize_with = "bounded::list::<_, _, CHAIN_LENGTH_MAX>")]
        chain_der: Vec<Vec<u8>>,
        /// How many shards the cluster has.
        shards: u16,
    },
    /// No.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Welcome, master.
    Master {
        /// Who you are from now on.
        number: u16,
        /// How many shards the cluster has.
        shards: u16,
        /// The root's certificate, DER.
        root_der: Vec<u8>,
        /// The intermediate's certificate, DER, with which masters certify agents and themselves.
        intermediate_der: Vec<u8>,
        /// Its key, PKCS #8 in DER.
        key_der: Vec<u8>,
        /// The masters, you among them.
        #[serde(deserialize_with = "bounded::list::<_, _, MASTERS_MAX>")]
        masters: Vec<MasterPlace>,
    },
}

/// Where a master is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterPlace {
    /// Its number.
    pub number: u16,
    /// Where it listens for masters and agents: `HOST:PORT`.
    pub quic: String,
    /// Where it serves HTTP: a URL.
    pub http: String,
}
