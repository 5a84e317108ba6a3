//! The frames of the event protocol: one JSON object per WebSocket text frame.
//!
//! Carries the base contract and the extension [`SUBPROTOCOL`]. Parsing is total: what comes out
//! is well formed, what is not well formed is a [`FrameError`], and unknown types and fields are
//! no reason to drop a link [CORE-13]. Nothing here knows about state.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use crate::frame::FrameError;
use crate::frame::{bad, fields, in_range, integer, parse_object, tagged, unknown};
pub use crate::recovery::Range;
use crate::recovery::{Epoch, MAX_SEQUENCE, Verdict, WallTime};

/// The WebSocket subprotocol under which the extension is negotiated.
pub const SUBPROTOCOL: &str = "gapless.events.v1";

/// The answer to a cursor, by name [CORE-4].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResyncVerdict {
    /// Nothing was missed.
    UpToDate,
    /// Everything missed follows.
    Replay,
    /// Something after the cursor is no longer kept.
    TooOld,
    /// The cursor lies beyond what the log holds of its epoch.
    Ahead,
    /// The cursor belongs to an epoch that the log does not descend from.
    OtherEpoch,
    /// The server knows nothing of the stream.
    Unknown,
}

impl ResyncVerdict {
    /// Whether something after the cursor could not be supplied.
    pub fn is_gap(self) -> bool {
        !matches!(self, Self::UpToDate | Self::Replay)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "up_to_date",
            Self::Replay => "replay",
            Self::TooOld => "too_old",
            Self::Ahead => "ahead",
            Self::OtherEpoch => "other_epoch",
            Self::Unknown => "unknown",
        }
    }
}

impl From<&Verdict> for ResyncVerdict {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::UpToDate => Self::UpToDate,
            Verdict::Replay { .. } => Self::Replay,
            Verdict::TooOld { .. } => Self::TooOld,
            Verdict::Ahead { .. } => Self::Ahead,
            Verdict::OtherEpoch { .. } => Self::OtherEpoch,
        }
    }
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame {
    /// Are you there?
    Ping,
    /// A wish that is accepted and changes neither numbering nor delivery [EV-13].
    Subscribe(Vec<String>),
    /// As [`ClientFrame::Subscribe`].
    Unsubscribe(Vec<String>),
    /// Send me what I missed.
    Resync(Resync),
}

/// A client's position and its wish for everything after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resync {
    /// The highest contiguous sequence that was applied; 0 = nothing.
    pub last_seen_seq: u64,
    /// The time of the last event by the client's clock; a hint of last resort [EV-6].
    pub since: Option<WallTime>,
    /// Extension: the epoch that `last_seen_seq` belongs to.
    pub epoch: Option<Epoch>,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame {
    /// I am here.
    Pong(Pong),
    /// Extension: the first frame of a connection.
    Stream(Stream),
    /// Extension: the verdict, before the first replayed frame.
    ResyncBegin(ResyncBegin),
    /// The replay is complete.
    ResyncAck(ResyncAck),
    /// Extension: these numbers will never come.
    Gap(Gap),
    /// An event of the stream.
    Event(Event),
}

/// The answer to a ping. The fields are the extension's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The highest sequence written on this connection before this frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// The highest sequence of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<u64>,
}

/// What the stream looks like at the moment of connecting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The epoch in which the server appends now.
    pub epoch: Epoch,
    /// The lowest sequence that can still be read.
    pub oldest: u64,
    /// The highest sequence; 0 = none yet.
    pub head: u64,
}

/// The verdict on a resync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncBegin {
    /// The epoch that the client's cursor has from here on.
    pub epoch: Epoch,
    /// The answer to the cursor.
    pub verdict: ResyncVerdict,
    /// The first sequence that follows; the client's cursor becomes `from - 1`.
    pub from: u64,
    /// The last sequence of the replay; `from - 1` if there is none.
    pub to: u64,
    /// What is known to be lost after the cursor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Range>,
}

/// The end of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncAck {
    /// The cursor that the client had sent.
    pub last_seen_seq: u64,
    /// The last sequence of the replay: the head when the resync was taken up.
    pub current_seq: u64,
    /// How many different events the replay had.
    pub replayed: u64,
    /// Whether something after the cursor could not be supplied.
    pub gap_detected: bool,
    /// Extension: the epoch of `current_seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Extension: the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<ResyncVerdict>,
    /// Extension: what is known to be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Range>,
}

/// A declared hole on a live connection [EV-10].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The epoch of the numbers.
    pub epoch: Epoch,
    /// The first lost sequence.
    pub from: u64,
    /// The last lost sequence.
    pub to: u64,
}

/// An event as it travels: its JSON text, and what the protocol needs to know of it.
///
/// A clone shares the text.
#[derive(Clone)]
pub struct Event {
    sequence: Option<u64>,
    names: Names,
    text: Bytes,
}

/// Where type and id of an event are.
#[derive(Debug, Clone)]
struct Names {
    kind: Name,
    id: Option<Name>,
}

/// A string of a JSON text.
#[derive(Debug, Clone)]
enum Name {
    /// Its bytes stand in the text, from `start` to before `end`.
    Within { start: u32, end: u32 },
    /// It is written with escapes.
    Apart(Arc<str>),
}

impl Name {
    /// The string that stands in a text from `start` on, if it does.
    fn at(start: usize, string: &str, text: &str) -> Self {
        let end = start.wrapping_add(string.len());
        match (text.get(start..end), start.try_into(), end.try_into()) {
            (Some(within), Ok(start), Ok(end)) if within == string => Self::Within { start, end },
            _ => Self::Apart(string.into()),
        }
    }

    /// A string that was read from a text.
    fn of(string: &str, text: &str) -> Self {
        Self::at((string.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize), string, text)
    }

    fn get<'a>(&'a self, text: &'a [u8]) -> &'a str {
        match self {
            Self::Within { start, end } => {
                std::str::from_utf8(&text[*start as usize..*end as usize])
                    .expect("it was a string when it was taken in")
            }
            Self::Apart(string) => string,
        }
    }

    /// The same in a text that has `bytes` more before it.
    fn moved(&self, bytes: u32) -> Self {
        match self {
            Self::Within { start, end } => Self::Within { start: start + bytes, end: end + bytes },
            Self::Apart(string) => Self::Apart(string.clone()),
        }
    }
}

impl Names {
    fn of(kind: &str, id: Option<&str>, text: &str) -> Self {
        Self { kind: Name::of(kind, text), id: id.map(|id| Name::of(id, text)) }
    }

    fn moved(&self, bytes: u32) -> Self {
        Self { kind: self.kind.moved(bytes), id: self.id.as_ref().map(|id| id.moved(bytes)) }
    }
}

/// By what an event is known again under another number: its type and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EventKey(Box<[u8]>);

impl PartialEq for Event {
    /// What it is called is part of its text.
    fn eq(&self, other: &Self) -> bool {
        (self.sequence, &self.text) == (other.sequence, &other.text)
    }
}

impl Event {
    /// Stamps a stored event with its number.
    ///
    /// `body` is the JSON object that [`EventBody`] made: it is not empty and does not contain
    /// `agent_seq`.
    pub fn stamped(sequence: u64, body: &EventBody) -> Self {
        let inner = &body.text[1..];
        let mut text = String::with_capacity(inner.len() + 34);
        // Writing to a string cannot fail.
        let _ = write!(text, "{{\"agent_seq\":{sequence},");
        // The brace takes the place of the body's.
        let names = body.names.moved(text.len() as u32 - 1);
        text.push_str(inner);
        Self { sequence: Some(sequence), names, text: text.into() }
    }

    /// Its number in the agent's stream; `None` for the base contract's replay from a database.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// Its id, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.names.id.as_ref().map(|id| id.get(&self.text))
    }

    /// Its type, for example `message.created`.
    pub fn kind(&self) -> &str {
        self.names.kind.get(&self.text)
    }

    /// By what it is known again under another number; `None` without an id.
    pub(crate) fn key(&self) -> Option<EventKey> {
        let (kind, id) = (self.kind(), self.id()?);
        // The length says where the type ends, whatever is in it.
        let length = kind.len().to_le_bytes();
        Some(EventKey([&length[..], kind.as_bytes(), id.as_bytes()].concat().into()))
    }

    /// The whole JSON object as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).expect("the text was UTF-8 when it was taken in")
    }

    /// The whole JSON object as the bytes of a text frame, without a copy.
    pub fn bytes(&self) -> &Bytes {
        &self.text
    }

    /// How much memory the event is counted with, in bytes.
    pub fn cost(&self) -> usize {
        self.text.len() + 64
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A publishable event without a number: a JSON object that starts with its `type` and `id`.
///
/// The payload's bytes are kept as they were published, so "the same event" can be decided by
/// comparing bytes.
#[derive(Debug, Clone)]
pub struct EventBody {
    names: Names,
    text: Arc<str>,
}

impl PartialEq for EventBody {
    /// What it is called is part of its text.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for EventBody {}

/// An event cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventBodyError {
    /// The payload is not a JSON object.
    #[error("`payload` must be a JSON object; its fields become fields of the event")]
    NotAnObject,
    /// The payload has a field that the protocol itself uses.
    #[error("`payload` must not have the field `{0}`: the protocol uses that name")]
    ReservedField(String),
    /// The type is empty, too long, or one that the protocol itself uses.
    #[error("`type` must have 1 to 128 characters and not be one of the protocol's own: {0:?}")]
    Kind(String),
    /// The id is empty or too long.
    #[error("`id` must have 1 to 256 characters")]
    Id,
    /// The event is too large.
    #[error("the event has {bytes} bytes; at most {bytes_max} are accepted")]
    TooLarge {
        /// The size of the event.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

const RESERVED_FIELDS: [&str; 4] = ["agent_seq", "id", "replayed", "type"];
const RESERVED_KINDS: [&str; 10] = [
    "gap",
    "ping",
    "pong",
    "resync",
    "resync_ack",
    "resync_begin",
    "stream",
    "subscribe",
    "unsubscribe",
    "error",
];

impl EventBody {
    /// Joins id, type and payload to one object.
    ///
    /// # Errors
    ///
    /// [`EventBodyError`] names the field that is at fault.
    pub fn new(
        id: Option<&str>,
        kind: &str,
        payload: &RawValue,
        bytes_max: usize,
    ) -> Result<Self, EventBodyError> {
        if id.is_some_and(|id| id.is_empty() || id.len() > 256) {
            return Err(EventBodyError::Id);
        }
        if kind.is_empty() || kind.len() > 128 || RESERVED_KINDS.contains(&kind) {
            return Err(EventBodyError::Kind(kind.chars().take(128).collect()));
        }
        let fields: Fields =
            serde_json::from_str(payload.get()).map_err(|_| EventBodyError::NotAnObject)?;
        if let Some(name) =
            fields.0.into_iter().find(|name| RESERVED_FIELDS.contains(&name.as_str()))
        {
            return Err(EventBodyError::ReservedField(name));
        }
        let mut text = "{\"type\":".to_owned();
        let kind = push_quoted(&mut text, kind);
        let id = id.map(|id| {
            text.push_str(",\"id\":");
            push_quoted(&mut text, id)
        });
        let inner = payload.get().trim();
        let inner = inner[1..inner.len() - 1].trim();
        if !inner.is_empty() {
            text.push(',');
            text.push_str(inner);
        }
        text.push('}');
        if text.len() > bytes_max {
            return Err(EventBodyError::TooLarge { bytes: text.len(), bytes_max });
        }
        Ok(Self { names: Names { kind, id }, text: text.into() })
    }

    /// Takes back the text of an event that [`EventBody::as_str`] gave to a store.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the text is not such an object; the store is damaged.
    pub fn from_stored(text: &str) -> Result<Self, FrameError> {
        let head = Head::parse(text)?;
        let kind = head.kind.ok_or(FrameError::NoType)?;
        Ok(Self { names: Names::of(&kind, head.id.as_deref(), text), text: text.into() })
    }

    /// Its id, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.names.id.as_ref().map(|id| id.get(self.text.as_bytes()))
    }

    /// The JSON object.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl ClientFrame {
    /// Reads a text frame that a client sent.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the frame is to be ignored, the link stays.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let head = Head::parse(text)?;
        let kind = head.kind.ok_or(FrameError::NoType)?;
        match kind.as_ref() {
            "ping" => Ok(Self::Ping),
            "subscribe" => Ok(Self::Subscribe(channels("subscribe", text)?)),
            "unsubscribe" => Ok(Self::Unsubscribe(channels("unsubscribe", text)?)),
            "resync" => {
                let raw: RawResync = fields("resync", text)?;
                let last_seen_seq = integer(&raw.last_seen_seq).ok_or_else(|| {
                    bad(
                        "resync",
                        format!("`last_seen_seq` must be an integer from 0 to {MAX_SEQUENCE}"),
                    )
                })?;
                Ok(Self::Resync(Resync {
                    last_seen_seq,
                    since: raw.since.as_deref().and_then(WallTime::parse_rfc3339),
                    epoch: raw.epoch,
                }))
            }
            other => Err(unknown(other)),
        }
    }

    /// The text of the frame.
    pub fn to_text(&self) -> String {
        match self {
            Self::Ping => r#"{"type":"ping"}"#.to_owned(),
            Self::Subscribe(channels) => {
                tagged("subscribe", &Channels { channels: channels.clone() })
            }
            Self::Unsubscribe(channels) => {
                tagged("unsubscribe", &Channels { channels: channels.clone() })
            }
            Self::Resync(resync) => tagged(
                "resync",
                &RawResync {
                    last_seen_seq: resync.last_seen_seq.into(),
                    since: resync.since.map(|since| since.to_rfc3339()),
                    epoch: resync.epoch.clone(),
                },
            ),
        }
    }
}

impl ServerFrame {
    /// Reads a text frame that a server sent. Every type that is not the protocol's own is an
    /// event.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the frame is to be ignored, the link stays.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let head = Head::parse(text)?;
        let kind = head.kind.as_deref().ok_or(FrameError::NoType)?;
        match kind {
            "pong" => {
                let pong: Pong = fields("pong", text)?;
                in_range("pong", pong.sent.into_iter().chain(pong.head))?;
                Ok(Self::Pong(pong))
            }
            "stream" => {
                let stream: Stream = fields("stream", text)?;
                in_range("stream", [stream.oldest, stream.head])?;
                Ok(Self::Stream(stream))
            }
            "resync_begin" => {
                let begin: ResyncBegin = fields("resync_begin", text)?;
                in_range("resync_begin", [begin.from, begin.to])?;
                in_range("resync_begin", begin.lost.iter().flat_map(|lost| [lost.from, lost.to]))?;
                if begin.from == 0 || begin.to + 1 < begin.from {
                    return Err(bad(
                        "resync_begin",
                        format!("`from` {} and `to` {} are no range", begin.from, begin.to),
                    ));
                }
                Ok(Self::ResyncBegin(begin))
            }
            "resync_ack" => {
                let ack: ResyncAck = fields("resync_ack", text)?;
                in_range("resync_ack", [ack.last_seen_seq, ack.current_seq, ack.replayed])?;
                in_range("resync_ack", ack.lost.iter().flat_map(|lost| [lost.from, lost.to]))?;
                Ok(Self::ResyncAck(ack))
            }
            "gap" => {
                let gap: Gap = fields("gap", text)?;
                in_range("gap", [gap.from, gap.to])?;
                if gap.from == 0 || gap.to < gap.from {
                    let problem = format!("`from` {} and `to` {} are no range", gap.from, gap.to);
                    return Err(bad("gap", problem));
                }
                Ok(Self::Gap(gap))
            }
            kind if RESERVED_KINDS.contains(&kind) => Err(unknown(kind)),
            kind => {
                let sequence = match &head.agent_seq {
                    None => None,
                    Some(value) => Some(integer(value).filter(|n| *n > 0).ok_or_else(|| {
                        bad(
                            "event",
                            format!("`agent_seq` must be an integer from 1 to {MAX_SEQUENCE}"),
                        )
                    })?),
                };
                let names = Names::of(kind, head.id.as_deref(), text);
                // A copy: a socket reads into its buffer again once nobody holds a part of it.
                let text = Bytes::copy_from_slice(text.as_bytes());
                Ok(Self::Event(Event { sequence, names, text }))
            }
        }
    }

    /// The bytes of the text frame.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Event(event) => event.text.clone(),
            Self::Pong(pong) => tagged("pong", pong).into(),
            Self::Stream(stream) => tagged("stream", stream).into(),
            Self::ResyncBegin(begin) => tagged("resync_begin", begin).into(),
            Self::ResyncAck(ack) => tagged("resync_ack", ack).into(),
            Self::Gap(gap) => tagged("gap", gap).into(),
        }
    }
}

/// The fields that decide what a frame is; everything else is skipped without a copy.
struct Head<'a> {
    kind: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    agent_seq: Option<serde_json::Value>,
}

/// They as almost every frame has them: no escapes, and everything of the usual type.
#[derive(Deserialize)]
struct PlainHead<'a> {
    #[serde(rename = "type", default)]
    kind: Option<&'a str>,
    #[serde(default)]
    id: Option<&'a str>,
    #[serde(default)]
    agent_seq: Option<u64>,
}

/// They as any frame may have them.
#[derive(Deserialize)]
struct AnyHead<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    id: Option<serde_json::Value>,
    #[serde(default)]
    agent_seq: Option<serde_json::Value>,
}

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Result<Self, FrameError> {
        if let Ok(PlainHead { kind, id, agent_seq }) = parse_object(text) {
            let (kind, id) = (kind.map(Cow::Borrowed), id.map(Cow::Borrowed));
            return Ok(Self { kind, id, agent_seq: agent_seq.map(Into::into) });
        }
        let AnyHead { kind, id, agent_seq } = parse_object(text)?;
        let id = match id {
            Some(serde_json::Value::String(id)) => Some(Cow::Owned(id)),
            _ => None,
        };
        Ok(Self { kind, id, agent_seq })
    }
}

#[derive(Serialize, Deserialize)]
struct RawResync {
    #[serde(default)]
    last_seen_seq: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
}

#[derive(Serialize, Deserialize)]
struct Channels {
    #[serde(default)]
    channels: Vec<String>,
}

/// The names of an object's fields, each once more than it stands there.
struct Fields(Vec<String>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Fields, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    map.next_value::<serde::de::IgnoredAny>()?;
                    names.push(name);
                }
                Ok(Fields(names))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn channels(kind: &'static str, text: &str) -> Result<Vec<String>, FrameError> {
    fields::<Channels>(kind, text).map(|channels| channels.channels)
}

/// Adds a string as JSON, and says where it is.
fn push_quoted(text: &mut String, string: &str) -> Name {
    let quoted = serde_json::to_string(string).expect("a string is always JSON");
    let start = text.len() + 1;
    text.push_str(&quoted);
    Name::at(start, string, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("valid JSON")
    }

    #[test]
    fn client_frames_survive_a_round_trip() {
        let frames = [
            ClientFrame::Ping,
            ClientFrame::Subscribe(vec!["general".into()]),
            ClientFrame::Unsubscribe(vec![]),
            ClientFrame::Resync(Resync { last_seen_seq: 4, since: None, epoch: None }),
            ClientFrame::Resync(Resync {
                last_seen_seq: MAX_SEQUENCE,
                since: Some(WallTime::from_millis(1_795_207_037_204)),
                epoch: Some(Epoch::parse("e1").expect("valid")),
            }),
        ];
        for frame in frames {
            assert_eq!(ClientFrame::parse(&frame.to_text()), Ok(frame));
        }
    }

    #[test]
    fn server_frames_survive_a_round_trip() {
        let epoch = Epoch::parse("e1").expect("valid");
        let lost = vec![Range { from: 3, to: 9 }];
        let body = EventBody::new(Some("x"), "m", &raw(r#"{ "a": 1 }"#), 1024).expect("valid");
        let frames = [
            ServerFrame::Pong(Pong::default()),
            ServerFrame::Pong(Pong { sent: Some(1), head: Some(2) }),
            ServerFrame::Stream(Stream { epoch: epoch.clone(), oldest: 1, head: 0 }),
            ServerFrame::ResyncBegin(ResyncBegin {
                epoch: epoch.clone(),
                verdict: ResyncVerdict::TooOld,
                from: 10,
                to: 9,
                lost: lost.clone(),
            }),
            ServerFrame::ResyncAck(ResyncAck {
                last_seen_seq: 2,
                current_seq: 9,
                replayed: 0,
                gap_detected: true,
                epoch: Some(epoch.clone()),
                verdict: Some(ResyncVerdict::TooOld),
                lost,
            }),
            ServerFrame::Gap(Gap { epoch, from: 1, to: 2 }),
            ServerFrame::Event(Event::stamped(7, &body)),
        ];
        for frame in frames {
            let bytes = frame.to_bytes();
            let text = std::str::from_utf8(&bytes).expect("UTF-8");
            assert_eq!(ServerFrame::parse(text), Ok(frame));
        }
    }

    #[test]
    fn a_base_peer_sees_only_base_fields() {
        let ack = ResyncAck {
            last_seen_seq: 4,
            current_seq: 7,
            replayed: 3,
            gap_detected: false,
            epoch: None,
            verdict: None,
            lost: vec![],
        };
        assert_eq!(
            ServerFrame::ResyncAck(ack).to_bytes(),
            r#"{"type":"resync_ack","last_seen_seq":4,"current_seq":7,"replayed":3,"gap_detected":false}"#
        );
        assert_eq!(ServerFrame::Pong(Pong::default()).to_bytes(), r#"{"type":"pong"}"#);
    }

    #[test]
    fn an_event_keeps_the_bytes_of_its_payload() {
        let body =
            EventBody::new(Some("e-1"), "message.created", &raw(r#"{"n":1.10,"t":"é"}"#), 1024)
                .expect("valid");
        let event = Event::stamped(42, &body);
        assert_eq!(
            event.text(),
            r#"{"agent_seq":42,"type":"message.created","id":"e-1","n":1.10,"t":"é"}"#
        );
        let stored = EventBody::from_stored(body.as_str()).expect("stored text");
        assert_eq!(Event::stamped(42, &stored), event);
    }

    #[test]
    fn names_are_the_same_however_an_event_came() {
        let payload = raw(r#"{"n":1,"text":"\u00e9 \"","deep":{"type":"x","id":[]}}"#);
        for (id, kind) in [
            (Some("id-1"), "note"),
            (None, "note"),
            (Some("note"), "note"),
            (Some("\"quoted\""), "note"),
            (Some("é"), "a \"kind\""),
            (Some("\u{1}"), "\\"),
            (None, "ü"),
        ] {
            let body = EventBody::new(id, kind, &payload, 1024).expect("valid");
            let stored = EventBody::from_stored(body.as_str()).expect("stored text");
            let stamped = Event::stamped(MAX_SEQUENCE, &body);
            let frame = ServerFrame::parse(stamped.text()).expect("an event");
            let ServerFrame::Event(parsed) = frame else { panic!("{frame:?}") };
            for event in [&stamped, &Event::stamped(MAX_SEQUENCE, &stored), &parsed] {
                assert_eq!((event.id(), event.kind(), event.text()), (id, kind, stamped.text()));
                assert_eq!(event.key(), stamped.key());
            }
            assert_eq!((body.id(), stored.id(), &stored), (id, id, &body));
        }
        for damaged in ["", "{", "{\"type\":\"note\"", "{\"type\":7}", "{\"id\":\"a\"}"] {
            assert!(EventBody::from_stored(damaged).is_err(), "{damaged}");
        }
    }

    #[test]
    fn keys_differ_where_type_or_id_does() {
        let key = |kind, id| {
            let body = EventBody::new(Some(id), kind, &raw("{}"), 1024).expect("valid");
            Event::stamped(1, &body).key().expect("it has an id")
        };
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_ne!(key("a", "b"), key("a", "c"));
        assert_ne!(key("a", "b"), key("b", "b"));
        assert_eq!(key("a", "b"), key("a", "b"));
    }

    #[test]
    fn an_id_that_is_no_text_is_none() {
        for id in ["7", "-7", "0.5", "true", "null", "[1,[2]]", r#"{"a":{"b":1}}"#] {
            let text = format!(r#"{{"type":"note","id":{id},"agent_seq":1}}"#);
            let frame = ServerFrame::parse(&text).expect("an event");
            let ServerFrame::Event(event) = frame else { panic!("{frame:?}") };
            assert_eq!((event.id(), event.key()), (None, None), "{id}");
        }
    }

    #[test]
    fn an_event_may_have_no_id_and_an_empty_payload() {
        let body = EventBody::new(None, "agent.status", &raw("{}"), 1024).expect("valid");
        assert_eq!(Event::stamped(1, &body).text(), r#"{"agent_seq":1,"type":"agent.status"}"#);
    }

    #[test]
    fn what_cannot_be_published_is_refused_with_the_field_at_fault() {
        let refuse =
            |id, kind, payload: &str| EventBody::new(id, kind, &raw(payload), 64).unwrap_err();
        assert_eq!(refuse(None, "m", "[1]"), EventBodyError::NotAnObject);
        assert_eq!(
            refuse(None, "m", r#"{"a":1,"agent_seq":1}"#),
            EventBodyError::ReservedField("agent_seq".into())
        );
        assert_eq!(refuse(None, "resync_ack", "{}"), EventBodyError::Kind("resync_ack".into()));
        assert_eq!(refuse(Some(""), "m", "{}"), EventBodyError::Id);
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(64));
        assert!(matches!(
            refuse(None, "m", &large),
            EventBodyError::TooLarge { bytes_max: 64, .. }
        ));
    }

    #[test]
    fn bad_frames_are_errors_that_name_the_problem() {
        assert!(matches!(ClientFrame::parse("{"), Err(FrameError::NotAnObject(_))));
        assert!(matches!(ClientFrame::parse("[]"), Err(FrameError::NotAnObject(_))));
        assert!(matches!(ClientFrame::parse("[\"ping\"]"), Err(FrameError::NotAnObject(_))));
        assert_eq!(ClientFrame::parse("{}"), Err(FrameError::NoType));
        assert_eq!(
            ClientFrame::parse(r#"{"type":"dance"}"#),
            Err(FrameError::UnknownType("dance".into()))
        );
        for bad in ["-1", "1.5", "\"4\"", "9007199254740992", "null"] {
            let text = format!(r#"{{"type":"resync","last_seen_seq":{bad}}}"#);
            assert!(
                matches!(ClientFrame::parse(&text), Err(FrameError::BadField { .. })),
                "{text}"
            );
        }
        for bad in ["0", "-3", "1.5", "\"4\""] {
            let text = format!(r#"{{"type":"m","agent_seq":{bad}}}"#);
            assert!(
                matches!(ServerFrame::parse(&text), Err(FrameError::BadField { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_that_no_stream_can_have_are_refused() {
        for text in [
            r#"{"type":"pong","head":9007199254740992}"#,
            r#"{"type":"stream","epoch":"e","oldest":1,"head":18446744073709551615}"#,
            r#"{"type":"gap","epoch":"e","from":1,"to":18446744073709551615}"#,
            r#"{"type":"gap","epoch":"e","from":3,"to":2}"#,
            r#"{"type":"resync_begin","epoch":"e","verdict":"replay","from":0,"to":1}"#,
            r#"{"type":"resync_begin","epoch":"e","verdict":"replay","from":1,"to":18446744073709551615}"#,
        ] {
            assert!(matches!(ServerFrame::parse(text), Err(FrameError::BadField { .. })), "{text}");
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_whole_floats_are_integers() {
        let frame =
            ClientFrame::parse(r#"{"type":"resync","last_seen_seq":4.0,"x":[{}],"since":"?"}"#);
        assert_eq!(
            frame,
            Ok(ClientFrame::Resync(Resync { last_seen_seq: 4, since: None, epoch: None }))
        );
    }
}
