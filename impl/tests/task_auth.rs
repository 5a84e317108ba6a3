//! Signed handshakes: who is let in, and how an agent with a wrong clock gets in.

use gapless::AgentId;
use gapless::recovery::WallTime;
use gapless::tasks::auth::{
    ClockOffset, Refusal, RsaKeys, RsaSigner, SignedHeaders, Verifier as _,
};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

/// 2025-11-21, in seconds.
const NOW: i64 = 1_763_700_000;

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

fn at(seconds: i64) -> WallTime {
    WallTime::from_millis(seconds * 1_000)
}

fn keys() -> RsaKeys {
    RsaKeys::default().with(agent(), include_bytes!("keys/agent.pub").to_vec())
}

fn signer() -> RsaSigner {
    RsaSigner::from_pkcs8(include_bytes!("keys/agent.pk8")).expect("a key")
}

fn signed(agent: &AgentId, seconds: i64) -> SignedHeaders {
    let mut entropy = ChaCha12Rng::seed_from_u64(1);
    SignedHeaders::sign(&signer(), agent, at(seconds), &mut entropy).expect("it signs")
}

#[test]
fn what_is_signed_is_let_in() {
    let headers = signed(&agent(), NOW);
    assert_eq!(headers.check(&keys(), at(NOW)), Ok(()));
    let pairs = headers.pairs();
    let find = |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, it)| it.as_str());
    assert_eq!(SignedHeaders::read(find), Ok(headers));
}

#[test]
fn a_signature_of_openssl_is_one() {
    let signature = include_bytes!("keys/openssl.sig");
    assert!(keys().verify(&agent(), b"agent-1|1763700000|AAAA", signature));
    assert!(!keys().verify(&agent(), b"agent-1|1763700000|AAAB", signature));
}

#[test]
fn who_is_not_known_or_signs_something_else_is_refused() {
    let stranger = AgentId::parse("agent-2").expect("valid");
    let refused = signed(&stranger, NOW).check(&keys(), at(NOW));
    assert_eq!(refused, Err(Refusal::Signature));
    let changed = SignedHeaders { timestamp: NOW + 1, ..signed(&agent(), NOW) };
    assert_eq!(changed.check(&keys(), at(NOW)), Err(Refusal::Signature));
    let other = SignedHeaders { nonce: "other".to_owned(), ..signed(&agent(), NOW) };
    assert_eq!(other.check(&keys(), at(NOW)), Err(Refusal::Signature));
}

#[test]
fn a_timestamp_is_good_for_five_minutes_to_either_side() {
    for (off, fine) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
        let checked = signed(&agent(), NOW + off).check(&keys(), at(NOW));
        assert_eq!(checked.is_ok(), fine, "{off} s");
        assert!(fine || checked == Err(Refusal::Skewed));
    }
    let mut far = signed(&agent(), NOW);
    far.timestamp = i64::MIN;
    assert!(far.check(&keys(), at(NOW)).is_err());
}

/// Signs with the message itself.
struct Plain;

impl gapless::tasks::auth::Verifier for Plain {
    fn verify(&self, _: &AgentId, message: &[u8], signature: &[u8]) -> bool {
        message == signature
    }
}

#[test]
fn a_timestamp_at_the_end_of_time_is_refused_like_any_other() {
    for (timestamp, now) in [(i64::MIN, 0), (i64::MIN + 7, 7), (i64::MAX, -1), (i64::MIN, -300)] {
        let signature = format!("{}|{timestamp}|n", agent()).into_bytes();
        let headers = SignedHeaders { agent: agent(), timestamp, nonce: "n".to_owned(), signature };
        assert_eq!(headers.check(&Plain, at(now)), Err(Refusal::Skewed), "{timestamp} at {now}");
    }
}

#[test]
fn an_agent_with_a_wrong_clock_learns_the_time_from_its_refusal() {
    let wrong = at(NOW - 86_400);
    let mut offset = ClockOffset::default();
    assert_eq!(offset.apply(wrong), wrong);
    offset.learn(at(NOW), wrong);
    assert_eq!(offset.apply(wrong), at(NOW));
    let mut entropy = ChaCha12Rng::seed_from_u64(1);
    let headers = SignedHeaders::sign(&signer(), &agent(), offset.apply(wrong), &mut entropy);
    assert_eq!(headers.expect("it signs").check(&keys(), at(NOW)), Ok(()));
}

#[test]
fn a_missing_or_unreadable_header_is_named() {
    let headers = signed(&agent(), NOW);
    for missing in ["x-agent-id", "x-timestamp", "x-nonce", "x-signature"] {
        for instead in [None, Some("")] {
            let pairs = headers.pairs();
            let find = |name| match pairs.iter().find(|(known, _)| *known == name) {
                Some((known, _)) if *known == missing => instead,
                Some((_, value)) => Some(value.as_str()),
                None => None,
            };
            let read = SignedHeaders::read(find);
            // An empty signature can be read, and is none.
            let refused = read.and_then(|it| it.check(&keys(), at(NOW)));
            let empty_signature = missing == "x-signature" && instead.is_some();
            match empty_signature {
                true => assert_eq!(refused, Err(Refusal::Signature)),
                false => assert_eq!(refused, Err(Refusal::Header(missing))),
            }
        }
    }
}
