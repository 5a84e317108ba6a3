//! The keys of agents: as they are said in a configuration, and what signs and checks with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::AgentId;
use gapless::tasks::auth::{RsaKeys, RsaSigner, Signer, SigningFailed, Verifier};

use super::protocol::{PublicKey, SigningKey};

/// FNV-1a, 64 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The PEM of something in DER.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn der(pem: &str) -> Result<Vec<u8>, String> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let text: String = lines.map(str::trim).collect();
    STANDARD.decode(text).map_err(|error| format!("a key is no PEM: {error}"))
}

fn secret(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("a secret is no base64: {error}"))
}

/// The stand-in for RSA-PSS.
struct Fnv1a {
    secret: Vec<u8>,
}

impl Fnv1a {
    fn signature(&self, message: &[u8]) -> [u8; 8] {
        fnv1a(&[&self.secret, message].concat()).to_be_bytes()
    }
}

impl Signer for Fnv1a {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        Ok(self.signature(message).to_vec())
    }
}

/// Signs with a key.
///
/// # Errors
///
/// A sentence, if the key is none.
pub(crate) fn signer(key: &SigningKey) -> Result<Arc<dyn Signer>, String> {
    Ok(match key {
        SigningKey::RsaPss { pem } => {
            Arc::new(RsaSigner::from_pkcs8(&der(pem)?).map_err(|error| error.to_string())?)
        }
        SigningKey::Fnv1a { secret: text } => Arc::new(Fnv1a { secret: secret(text)? }),
    })
}

/// The keys of all agents.
#[derive(Default)]
struct Keys {
    rsa: RsaKeys,
    fnv1a: BTreeMap<AgentId, Fnv1a>,
}

impl Verifier for Keys {
    fn verify(&self, agent: &AgentId, message: &[u8], signature: &[u8]) -> bool {
        match self.fnv1a.get(agent) {
            Some(key) => key.signature(message) == signature,
            None => self.rsa.verify(agent, message, signature),
        }
    }
}

/// Checks with the keys of agents, by name.
///
/// # Errors
///
/// A sentence, if a key is none, or a name.
pub(crate) fn verifier(agents: &BTreeMap<String, PublicKey>) -> Result<Arc<dyn Verifier>, String> {
    let mut keys = Keys::default();
    for (agent, key) in agents {
        let agent = AgentId::parse(agent).map_err(|error| error.to_string())?;
        match key {
            PublicKey::RsaPss { pem } => keys.rsa = keys.rsa.with(agent, der(pem)?),
            PublicKey::Fnv1a { secret: text } => {
                keys.fnv1a.insert(agent, Fnv1a { secret: secret(text)? });
            }
        }
    }
    Ok(Arc::new(keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &[u8] = include_bytes!("../../../impl/tests/keys/agent.pk8");
    const PUBLIC: &[u8] = include_bytes!("../../../impl/tests/keys/agent.pub");

    #[test]
    fn what_one_key_signs_no_other_checks() {
        let (one, other) = (STANDARD.encode("one"), STANDARD.encode("other"));
        let pairs = [
            (
                SigningKey::RsaPss { pem: pem("PRIVATE KEY", PRIVATE) },
                PublicKey::RsaPss { pem: pem("RSA PUBLIC KEY", PUBLIC) },
            ),
            (SigningKey::Fnv1a { secret: one.clone() }, PublicKey::Fnv1a { secret: one }),
        ];
        for (private, public) in pairs {
            let stranger = PublicKey::Fnv1a { secret: other.clone() };
            let agents = [("agent-1".to_owned(), public), ("agent-2".to_owned(), stranger)];
            let verifier = verifier(&agents.into()).expect("the keys are good");
            let signed =
                signer(&private).expect("the key is good").sign(b"text").expect("it signs");
            let checks = |agent: &str, text: &[u8]| {
                verifier.verify(&AgentId::parse(agent).expect("valid"), text, &signed)
            };
            assert!(checks("agent-1", b"text"));
            assert!(!checks("agent-1", b"another text"));
            assert!(!checks("agent-2", b"text"));
            assert!(!checks("agent-3", b"text"));
        }
    }
}
