//! How agents sign in the world: for most runs cheaply, for some as in production.

use std::sync::Arc;

use gapless::AgentId;
use gapless::tasks::auth::{RsaKeys, RsaSigner, Signer, SigningFailed, Verifier};

use super::agent_id;
use super::script::digest;

/// Signs with a number that nobody is kept from computing.
struct Cheap(AgentId);

fn signature(agent: &AgentId, message: &[u8]) -> Vec<u8> {
    let key = digest(agent.as_str().as_bytes()).to_be_bytes();
    digest(&[&key, message].concat()).to_be_bytes().to_vec()
}

impl Signer for Cheap {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        Ok(signature(&self.0, message))
    }
}

struct CheapKeys;

impl Verifier for CheapKeys {
    fn verify(&self, agent: &AgentId, message: &[u8], signed: &[u8]) -> bool {
        signature(agent, message) == signed
    }
}

/// A key for tests, the same for every agent.
const PRIVATE: &[u8] = include_bytes!("../../../../impl/tests/keys/agent.pk8");
const PUBLIC: &[u8] = include_bytes!("../../../../impl/tests/keys/agent.pub");

pub(super) fn signer(agent: AgentId, rsa: bool) -> Result<Arc<dyn Signer>, SigningFailed> {
    Ok(match rsa {
        true => Arc::new(RsaSigner::from_pkcs8(PRIVATE)?),
        false => Arc::new(Cheap(agent)),
    })
}

pub(super) fn verifier(agents: u32, rsa: bool) -> Arc<dyn Verifier> {
    match rsa {
        true => {
            let keys = RsaKeys::default();
            Arc::new(
                (1..=agents).fold(keys, |keys, agent| keys.with(agent_id(agent), PUBLIC.to_vec())),
            )
        }
        false => Arc::new(CheapKeys),
    }
}
