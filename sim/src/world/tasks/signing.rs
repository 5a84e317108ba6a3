//! With what agents sign in the world: for most runs cheaply, for some as in production.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::agent_id;
use crate::conform::keys::pem;
use crate::conform::{PublicKey, SigningKey};

/// A key for tests, the same for every agent.
const PRIVATE: &[u8] = include_bytes!("../../../../impl/tests/keys/agent.pk8");
const PUBLIC: &[u8] = include_bytes!("../../../../impl/tests/keys/agent.pub");

/// A number that nobody is kept from computing.
fn secret(agent: u32) -> String {
    STANDARD.encode(agent_id(agent).as_str())
}

/// The key of an agent.
pub(super) fn private_key(agent: u32, rsa: bool) -> SigningKey {
    match rsa {
        true => SigningKey::RsaPss { pem: pem("PRIVATE KEY", PRIVATE) },
        false => SigningKey::Fnv1a { secret: secret(agent) },
    }
}

/// With what the signatures of all agents are checked.
pub(super) fn public_keys(agents: u32, rsa: bool) -> BTreeMap<String, PublicKey> {
    let key = |agent| match rsa {
        true => PublicKey::RsaPss { pem: pem("RSA PUBLIC KEY", PUBLIC) },
        false => PublicKey::Fnv1a { secret: secret(agent) },
    };
    (1..=agents).map(|agent| (agent_id(agent).to_string(), key(agent))).collect()
}
