//! What is in a message of the engine, and which subject it has.
//!
//! The last message of a stream says by itself how far the stream goes and which epochs have numbers
//! in it, so nothing else has to be stored with it at once.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::engine::Stored;
use crate::events::AgentId;
use crate::events::wire::EventBody;
use crate::recovery::{Epoch, MAX_SEQUENCE, WallTime};

/// The events that one transaction appended to one stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// Who tried to store it, and which try it was: nobody else uses the same text.
    pub(super) attempt: String,
    /// The epoch of the numbers.
    pub(super) epoch: Epoch,
    /// The number of the first event.
    pub(super) first: u64,
    /// When they were stored, by the clock of whoever did; never before the message before.
    pub(super) at: WallTime,
    /// The epochs that have numbers in the stream, and the first number of each, oldest first.
    pub(super) epochs: Vec<(Epoch, u64)>,
    pub(super) events: Vec<Item>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// Who published it.
    pub(super) principal: String,
    pub(super) body: EventBody,
}

#[derive(Serialize, Deserialize)]
struct Raw<'a> {
    attempt: String,
    epoch: Epoch,
    first: u64,
    at: i64,
    epochs: Vec<(Epoch, u64)>,
    #[serde(borrow)]
    events: Vec<(String, &'a RawValue)>,
}

/// A message of the engine is none of this log's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {stream_seq} of the engine is damaged: {problem}")]
pub(super) struct Damaged {
    stream_seq: u64,
    problem: String,
}

impl Damaged {
    pub(super) fn new(stored: &Stored, problem: impl Into<String>) -> Self {
        Self { stream_seq: stored.stream_seq, problem: problem.into() }
    }
}

impl Message {
    /// The number of the last event.
    pub(super) fn last(&self) -> u64 {
        self.first + self.events.len() as u64 - 1
    }

    pub(super) fn to_payload(&self) -> Vec<u8> {
        let bodies: Vec<_> = self.events.iter().map(|item| raw(&item.body)).collect();
        let events = self.events.iter().zip(&bodies);
        let events = events.map(|(item, body)| (item.principal.clone(), &**body)).collect();
        let raw = Raw {
            attempt: self.attempt.clone(),
            epoch: self.epoch.clone(),
            first: self.first,
            at: self.at.as_millis(),
            epochs: self.epochs.clone(),
            events,
        };
        serde_json::to_vec(&raw).expect("text and numbers are JSON")
    }

    pub(super) fn parse(stored: &Stored) -> Result<Self, Damaged> {
        let damaged = |problem: &str| Damaged::new(stored, problem);
        let raw: Raw<'_> =
            serde_json::from_slice(&stored.payload).map_err(|error| damaged(&error.to_string()))?;
        if raw.events.is_empty() || raw.first == 0 {
            return Err(damaged("it has no event with a number"));
        }
        let last = raw.first.saturating_add(raw.events.len() as u64 - 1);
        if last > MAX_SEQUENCE {
            return Err(damaged(&format!("{last} is more than {MAX_SEQUENCE}")));
        }
        let firsts = || raw.epochs.iter().map(|(_, first)| *first);
        let is_own = raw.epochs.last().is_some_and(|(epoch, _)| *epoch == raw.epoch);
        if !is_own || firsts().any(|first| first == 0 || first > raw.first) {
            return Err(damaged("its epochs do not end with its own"));
        }
        if !firsts().is_sorted_by(|one, next| one < next) {
            return Err(damaged("its epochs are not in their order"));
        }
        let mut events = Vec::with_capacity(raw.events.len());
        for (principal, body) in raw.events {
            let body = EventBody::from_stored(body.get());
            let body = body.map_err(|error| damaged(&error.to_string()))?;
            events.push(Item { principal, body });
        }
        Ok(Self {
            attempt: raw.attempt,
            epoch: raw.epoch,
            first: raw.first,
            at: WallTime::from_millis(raw.at),
            epochs: raw.epochs,
            events,
        })
    }
}

fn raw(body: &EventBody) -> Box<RawValue> {
    RawValue::from_string(body.as_str().to_owned()).expect("an event is a JSON object")
}

/// The epochs of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Epochs {
    /// In the order in which they began. The last one is current.
    pub(super) begun: Vec<Epoch>,
    /// Those of before the log was found to have gone back: their numbers may belong to other events
    /// than were told, so a cursor of them proves nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) broken: Vec<Epoch>,
}

impl Epochs {
    pub(super) fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("epochs are JSON")
    }

    pub(super) fn parse(stored: &Stored) -> Result<Self, Damaged> {
        parsed(stored)
    }
}

/// The content of a message, if it is what is expected there.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(stored: &Stored) -> Result<T, Damaged> {
    serde_json::from_slice(&stored.payload).map_err(|error| Damaged::new(stored, error.to_string()))
}

/// The subjects of a log, below its prefix.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    /// With the dot that follows it.
    events: String,
    /// The same of the ids of removed events.
    ids: String,
    pub(super) epoch: String,
    pub(super) barrier: String,
}

impl Subjects {
    /// Below a prefix, for a server whose name begins with two random digits: as many subjects for
    /// barriers as there are of these, however many servers there have been.
    pub(super) fn new(prefix: &str, server: &str) -> Self {
        let slot = server.get(..2).unwrap_or(server);
        Self {
            events: format!("{prefix}.events."),
            ids: format!("{prefix}.ids."),
            epoch: format!("{prefix}.epoch"),
            barrier: format!("{prefix}.barrier.{slot}"),
        }
    }

    /// The subject of a stream: letters, digits, `-` and `_` as they are, every other byte as `=` and
    /// two digits.
    pub(super) fn of(&self, agent: &AgentId) -> String {
        below(&self.events, agent)
    }

    /// The subject of the ids of events that were removed from a stream.
    pub(super) fn ids_of(&self, agent: &AgentId) -> String {
        below(&self.ids, agent)
    }

    /// Whose stream a subject is, if it is one.
    pub(super) fn agent(&self, subject: &str) -> Option<AgentId> {
        let mut text = String::new();
        let mut rest = subject.strip_prefix(&self.events)?;
        while let Some((before, after)) = rest.split_once('=') {
            text.push_str(before);
            text.push(char::from(u8::from_str_radix(after.get(..2)?, 16).ok()?));
            rest = after.get(2..)?;
        }
        text.push_str(rest);
        AgentId::parse(&text).ok()
    }
}

/// The subject of an agent below a prefix.
fn below(prefix: &str, agent: &AgentId) -> String {
    let mut subject = prefix.to_owned();
    for byte in agent.as_str().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {
                subject.push(char::from(byte));
            }
            _ => {
                let _ = write!(subject, "={byte:02X}");
            }
        }
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_one_agent_and_has_no_dot_or_wildcard_of_it() {
        let subjects = Subjects::new("gapless", "s");
        for (name, expected) in [
            ("agent-1_A", "gapless.events.agent-1_A"),
            ("a.b", "gapless.events.a=2Eb"),
            ("*>=", "gapless.events.=2A=3E=3D"),
            ("=2E", "gapless.events.=3D2E"),
        ] {
            let agent = AgentId::parse(name).expect("valid");
            assert_eq!(subjects.of(&agent), expected);
            assert_eq!(subjects.agent(expected), Some(agent));
        }
        for foreign in
            ["gapless.epoch", "gapless.events.", "gapless.events.=2", "gapless.events.=zz"]
        {
            assert_eq!(subjects.agent(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_message_comes_back_byte_for_byte() {
        let payload = RawValue::from_string(r#"{"n": 1.0,  "é":"\u00e9"}"#.to_owned());
        let body =
            EventBody::new(Some("id"), "note", &payload.expect("JSON"), 1024).expect("valid");
        let epoch = Epoch::parse("e1").expect("valid");
        let message = Message {
            attempt: "s-1".to_owned(),
            epoch: epoch.clone(),
            first: 7,
            at: WallTime::from_millis(5),
            epochs: vec![(epoch, 7)],
            events: vec![Item { principal: "p".to_owned(), body }],
        };
        let payload = message.to_payload();
        let stored = Stored { stream_seq: 1, subject: String::new(), payload };
        assert_eq!(Message::parse(&stored), Ok(message));
    }

    #[test]
    fn a_message_of_somebody_else_is_damaged() {
        let message = |first: u64, epochs: &str, events: &str| {
            format!(
                r#"{{"attempt":"a","epoch":"e","at":0,"first":{first},"epochs":[{epochs}],"events":[{events}]}}"#
            )
        };
        let (own, event) = (r#"["e",1]"#, r#"["p",{"type":"t"}]"#);
        let parsed = |content: &str| {
            let payload = content.as_bytes().to_vec();
            Message::parse(&Stored { stream_seq: 9, subject: String::new(), payload })
        };
        for (first, epochs) in [(1, own), (MAX_SEQUENCE, own), (7, r#"["d",2],["e",7]"#)] {
            assert!(parsed(&message(first, epochs, event)).is_ok(), "{first} {epochs}");
        }
        for content in [
            "nothing".to_owned(),
            message(1, own, ""),
            message(0, own, event),
            message(1, own, r#"["p",{"no":"type"}]"#),
            message(MAX_SEQUENCE + 1, own, event),
            message(MAX_SEQUENCE, own, &format!("{event},{event}")),
            message(u64::MAX, own, &format!("{event},{event}")),
            message(7, "", event),
            message(7, r#"["e",1],["d",2]"#, event),
            message(7, r#"["e",8]"#, event),
            message(7, r#"["e",0]"#, event),
            message(7, r#"["d",4],["c",3],["e",7]"#, event),
        ] {
            let damaged = parsed(&content).expect_err(&content);
            assert!(damaged.to_string().contains("message 9 "), "{damaged}");
        }
    }
}
