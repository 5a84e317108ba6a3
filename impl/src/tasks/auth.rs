//! Who an agent is: requests signed with its key [TK-14].
//!
//! An agent signs `agent|timestamp|nonce` with RSA-PSS and SHA-256 and sends the parts as headers. A
//! signature is good for [`WINDOW`] around the controller's time and for one use. An agent whose
//! clock is wrong learns the controller's time from the refusal, and signs with that from then on;
//! its clock stays as it is.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::AgentId;
use crate::recovery::{Entropy, WallTime};

/// How far a timestamp may be off, to either side: 300 s.
pub const WINDOW: Duration = Duration::from_secs(300);

/// The header that names the agent.
pub const AGENT_HEADER: &str = "x-agent-id";
/// The header with the time of signing, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "x-timestamp";
/// The header with the nonce.
pub const NONCE_HEADER: &str = "x-nonce";
/// The header with the signature in base64.
pub const SIGNATURE_HEADER: &str = "x-signature";

/// The longest nonce that is taken, in bytes.
const NONCE_LENGTH_MAX: usize = 128;

/// Signs in the name of an agent.
pub trait Signer: Send + Sync + 'static {
    /// The signature of a message.
    ///
    /// # Errors
    ///
    /// [`SigningFailed`] if the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed>;
}

/// Knows the keys of agents.
pub trait Verifier: Send + Sync + 'static {
    /// Whether the signature of the message is the agent's; `false` for one that is not known.
    fn verify(&self, agent: &AgentId, message: &[u8], signature: &[u8]) -> bool;
}

/// The key cannot sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the agent's key cannot sign: {0}")]
pub struct SigningFailed(pub String);

/// What a signed request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    /// Who signs.
    pub agent: AgentId,
    /// When, in seconds since 1970.
    pub timestamp: i64,
    /// Makes the signature good for one use.
    pub nonce: String,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Why a request was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header is missing or cannot be read.
    #[error("the header `{0}` is missing or not readable")]
    Header(&'static str),
    /// The agent is not known, or the signature is not its own.
    #[error("the agent is not known, or the signature is not its own")]
    Signature,
    /// The timestamp is outside of the window.
    #[error("the timestamp is not within {} s of the controller's time", WINDOW.as_secs())]
    Skewed,
    /// The nonce was used before.
    #[error("the nonce was used before")]
    Replayed,
}

/// The text that is signed.
fn message(agent: &AgentId, timestamp: i64, nonce: &str) -> String {
    format!("{agent}|{timestamp}|{nonce}")
}

impl SignedHeaders {
    /// Signs a request now.
    ///
    /// # Errors
    ///
    /// [`SigningFailed`] if the key cannot be used.
    pub fn sign(
        signer: &dyn Signer,
        agent: &AgentId,
        at: WallTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, SigningFailed> {
        let timestamp = at.as_millis().div_euclid(1_000);
        let random = [entropy.next_u64().to_be_bytes(), entropy.next_u64().to_be_bytes()];
        let nonce = BASE64.encode(random.concat());
        let signature = signer.sign(message(agent, timestamp, &nonce).as_bytes())?;
        Ok(Self { agent: agent.clone(), timestamp, nonce, signature })
    }

    /// The names of the headers and their values.
    pub fn pairs(&self) -> [(&'static str, String); 4] {
        [
            (AGENT_HEADER, self.agent.to_string()),
            (TIMESTAMP_HEADER, self.timestamp.to_string()),
            (NONCE_HEADER, self.nonce.clone()),
            (SIGNATURE_HEADER, BASE64.encode(&self.signature)),
        ]
    }

    /// Reads the headers of a request.
    ///
    /// # Errors
    ///
    /// [`Refusal::Header`] names the one that is missing or cannot be read.
    pub fn read<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Result<Self, Refusal> {
        let read = |name| header(name).ok_or(Refusal::Header(name));
        let agent = AgentId::parse(read(AGENT_HEADER)?);
        let timestamp = read(TIMESTAMP_HEADER)?.parse();
        let nonce = read(NONCE_HEADER)?;
        if !(1..=NONCE_LENGTH_MAX).contains(&nonce.len()) {
            return Err(Refusal::Header(NONCE_HEADER));
        }
        let signature = BASE64.decode(read(SIGNATURE_HEADER)?);
        Ok(Self {
            agent: agent.map_err(|_| Refusal::Header(AGENT_HEADER))?,
            timestamp: timestamp.map_err(|_| Refusal::Header(TIMESTAMP_HEADER))?,
            nonce: nonce.to_owned(),
            signature: signature.map_err(|_| Refusal::Header(SIGNATURE_HEADER))?,
        })
    }

    /// Checks signature and time. That the nonce is new is the record's to say, last of all: a
    /// stranger cannot use up the nonces of others.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says what is wrong.
    pub fn check(&self, verifier: &dyn Verifier, now: WallTime) -> Result<(), Refusal> {
        let text = message(&self.agent, self.timestamp, &self.nonce);
        if !verifier.verify(&self.agent, text.as_bytes(), &self.signature) {
            return Err(Refusal::Signature);
        }
        let off = self.timestamp.abs_diff(now.as_millis().div_euclid(1_000));
        match off <= WINDOW.as_secs() {
            true => Ok(()),
            false => Err(Refusal::Skewed),
        }
    }

    /// When it was signed.
    pub fn at(&self) -> WallTime {
        WallTime::from_millis(self.timestamp.saturating_mul(1_000))
    }
}

/// How far an agent's clock is off, as it learns from refusals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockOffset {
    ms: i64,
}

impl ClockOffset {
    /// Takes the time of a controller that has refused a timestamp.
    pub fn learn(&mut self, controller: WallTime, now: WallTime) {
        self.ms = controller.as_millis().saturating_sub(now.as_millis());
    }

    /// The controller's time, as far as known.
    pub fn apply(self, now: WallTime) -> WallTime {
        WallTime::from_millis(now.as_millis().saturating_add(self.ms))
    }
}

#[cfg(feature = "rsa")]
mod rsa {
    use std::collections::BTreeMap;
    use std::fmt;

    use ring::rand::SystemRandom;
    use ring::signature::{
        RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaKeyPair, UnparsedPublicKey,
    };

    use super::{Signer, SigningFailed, Verifier};
    use crate::AgentId;

    /// Signs with an RSA key.
    pub struct RsaSigner {
        key: RsaKeyPair,
        random: SystemRandom,
    }

    impl fmt::Debug for RsaSigner {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("RsaSigner").finish_non_exhaustive()
        }
    }

    impl RsaSigner {
        /// Takes a private key of 2048 to 4096 bits in PKCS#8, DER.
        ///
        /// # Errors
        ///
        /// [`SigningFailed`] if it is none.
        pub fn from_pkcs8(der: &[u8]) -> Result<Self, SigningFailed> {
            let key = RsaKeyPair::from_pkcs8(der).map_err(|error| {
                SigningFailed(format!(
                    "it is no RSA key of 2048 to 4096 bits in PKCS#8, DER: {error}"
                ))
            })?;
            Ok(Self { key, random: SystemRandom::new() })
        }

        /// The public key that belongs to it, as [`RsaKeys::with`] takes it: PKCS#1, DER.
        pub fn public_key(&self) -> &[u8] {
            self.key.public().as_ref()
        }
    }

    impl Signer for RsaSigner {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
            let mut signature = vec![0; self.key.public().modulus_len()];
            self.key
                .sign(&RSA_PSS_SHA256, &self.random, message, &mut signature)
                .map_err(|error| SigningFailed(error.to_string()))?;
            Ok(signature)
        }
    }

    /// The public keys of agents. A signature has a salt of 32 bytes.
    #[derive(Debug, Clone, Default)]
    pub struct RsaKeys(BTreeMap<AgentId, Vec<u8>>);

    impl RsaKeys {
        /// Adds the public key of an agent: PKCS#1 (`RSAPublicKey`), DER.
        #[must_use]
        pub fn with(mut self, agent: AgentId, pkcs1_der: Vec<u8>) -> Self {
            self.0.insert(agent, pkcs1_der);
            self
        }
    }

    impl Verifier for RsaKeys {
        fn verify(&self, agent: &AgentId, message: &[u8], signature: &[u8]) -> bool {
            let Some(key) = self.0.get(agent) else { return false };
            let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key);
            key.verify(message, signature).is_ok()
        }
    }
}

#[cfg(feature = "rsa")]
pub use rsa::{RsaKeys, RsaSigner};
