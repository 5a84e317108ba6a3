//! The headers that an agent signs.

use gapless::AgentId;
use gapless::recovery::{Entropy, WallTime};
use gapless::tasks::auth::{
    AGENT_HEADER, ClockOffset, NONCE_HEADER, Refusal, SIGNATURE_HEADER, SignedHeaders, Signer,
    SigningFailed, TIMESTAMP_HEADER, Verifier, WINDOW,
};

use crate::source::Source;

/// Signs with the message itself.
struct Plain;

impl Signer for Plain {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        Ok(message.to_vec())
    }
}

impl Verifier for Plain {
    fn verify(&self, _: &AgentId, message: &[u8], signature: &[u8]) -> bool {
        message == signature
    }
}

struct Zeros;

impl Entropy for Zeros {
    fn next_u64(&mut self) -> u64 {
        0
    }
}

fn seconds(source: &mut Source<'_>) -> i64 {
    match source.below(6) {
        0 => i64::MIN,
        1 => i64::MAX,
        2 => i64::from(source.byte()) - 128,
        3 => source.number() as i64,
        4 => i64::MIN + i64::from(source.byte()),
        _ => 1_767_225_600 + i64::from(source.byte()) * 5 - 640,
    }
}

/// Reads headers, signs and checks them under any clock.
pub fn tasks_auth(data: &[u8]) {
    let mut source = Source::new(data);
    let agent = AgentId::parse("agent-1").expect("valid");
    let now = WallTime::from_millis(seconds(&mut source).saturating_mul(1_000));
    let mut offset = ClockOffset::default();
    let told = WallTime::from_millis(seconds(&mut source).saturating_mul(1_000));
    offset.learn(told, now);
    let at = offset.apply(now);
    let signed = SignedHeaders::sign(&Plain, &agent, at, &mut Zeros).expect("it signs");
    let pairs = signed.pairs();
    let header = |name: &'static str| {
        pairs.iter().find(|(of, _)| *of == name).map(|(_, value)| value.as_str())
    };
    let read = SignedHeaders::read(header);
    assert_eq!(read.as_ref(), Ok(&signed), "what is signed can be read");

    let timestamp = match source.below(3) {
        0 => source.text(),
        1 => format!("+{}", source.number()),
        _ => seconds(&mut source).to_string(),
    };
    let (name, nonce) = (source.text(), source.text());
    let signature = match source.flip() {
        true => {
            use base64::Engine as _;
            let message = format!("{name}|{timestamp}|{nonce}");
            base64::engine::general_purpose::STANDARD.encode(message)
        }
        false => source.text(),
    };
    let missing = source.below(5);
    let names = [AGENT_HEADER, TIMESTAMP_HEADER, NONCE_HEADER, SIGNATURE_HEADER];
    let values = [&name, &timestamp, &nonce, &signature];
    let header = |name: &'static str| {
        let at = names.iter().position(|it| *it == name).filter(|at| *at != missing)?;
        Some(values[at].as_str())
    };
    let Ok(headers) = SignedHeaders::read(header) else { return };
    assert_eq!(missing, names.len(), "a header that is missing is not read");
    let _ = headers.at();
    let off = i128::from(headers.timestamp) - i128::from(now.as_millis().div_euclid(1_000));
    match headers.check(&Plain, now) {
        Ok(()) => {
            assert!(off.unsigned_abs() <= u128::from(WINDOW.as_secs()), "{off} s is within");
        }
        Err(Refusal::Skewed) => assert!(off.unsigned_abs() > u128::from(WINDOW.as_secs())),
        Err(Refusal::Signature) => {}
        Err(other) => panic!("what could be read is not refused for {other:?}"),
    }
}
