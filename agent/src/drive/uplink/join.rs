//! How a machine becomes an agent: it shows a token to a master, once.

use protocol::identity::{self, Identity, JoinToken};
use protocol::link;
use protocol::message::JoinReply;
use std::path::Path;
use std::time::Duration;

use super::super::AgentError;
use super::{Wait, resolve};

/// How long a machine without an identity tries to join.
const TRIES_MAX: u32 = 12;
/// The wait before the second try; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The identity in `dir`, or the one that the token gets.
pub(in crate::drive) async fn identity(dir: &Path, masters: &[String], token: Option<&JoinToken>) -> Result<Identity, AgentError> {
    if let Some(identity) = Identity::load(dir)? {
        return Ok(identity);
    }
    let token = token.ok_or_else(|| AgentError::NoIdentity { dir: dir.to_owned() })?;
    let mut wait = Wait::new(RETRY_FIRST, RETRY_MAX);
    for tries in 1.. {
        let error = match join(masters, token).await {
            Ok(identity) => {
                identity.save(dir)?;
                return Ok(identity);
            }
            Err(error @ AgentError::Refused { .. }) => return Err(error),
            Err(error) if tries == TRIES_MAX => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(%error, "could not join yet");
        tokio::time::sleep(wait.draw()).await;
    }
    unreachable!("the last try returns")
}

async fn join(masters: &[String], token: &JoinToken) -> Result<Identity, AgentError> {
    let mut last = AgentError::NoMaster { masters: masters.to_vec() };
    for master in masters {
        for address in resolve(master).await {
            let (key_der, csr_der) = identity::csr()?;
            match link::join(address, token, csr_der).await {
                Ok(JoinReply::Welcome { agent, chain_der, .. }) => {
                    let identity = Identity::new(chain_der, key_der)?;
                    if identity.agent() != Some(agent) {
                        return Err(AgentError::Refused {
                            reason: "the master gave a certificate that is not for the agent it named".into(),
                        });
                    }
                    return Ok(identity);
                }
                Ok(JoinReply::Refused { reason }) => return Err(AgentError::Refused { reason }),
                Ok(JoinReply::Master { .. }) => return Err(AgentError::Refused { reason: "it takes this agent for a master".into() }),
                Err(error) => last = AgentError::Link(error),
            }
        }
    }
    Err(last)
}
