//! Cuts a byte stream into an HTTP head and WebSocket frames, and describes them.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;

use crate::trace::{Passage, Text};

/// A piece of a connection, in one direction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// A whole HTTP head, or bytes of a connection that was not upgraded.
    Http(Bytes),
    /// A whole WebSocket frame.
    Frame(Frame),
    /// A part of a frame that is too long to be held.
    Part(Bytes),
}

/// The longest head that is waited for, in bytes: with a longer one the connection passes as it is.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The longest frame that is held until it is whole, in bytes.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// A whole WebSocket frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// As it stands on the wire.
    pub(crate) wire: Bytes,
    pub(crate) opcode: u8,
    /// Unmasked.
    pub(crate) payload: Bytes,
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;

/// Cuts one direction of a connection into pieces.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    mode: Mode,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// An HTTP head is expected.
    #[default]
    Head,
    /// The head upgraded the connection.
    Frames,
    /// The head did not: bytes pass as they are.
    Raw,
    /// So many bytes of a frame that is too long are still to come.
    Long(u64),
}

impl Splitter {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether frames follow what has come so far.
    pub(crate) fn upgraded(&self) -> bool {
        matches!(self.mode, Mode::Frames | Mode::Long(_))
    }

    /// Whether a frame may be put in here without tearing another.
    pub(crate) fn at_boundary(&self) -> bool {
        self.mode == Mode::Frames && self.buffer.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    pub(crate) fn next(&mut self) -> Option<Piece> {
        match self.mode {
            Mode::Head => {
                let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n");
                if end.is_none() && self.buffer.len() > HEAD_BYTES_MAX {
                    self.mode = Mode::Raw;
                    return self.next();
                }
                let end = end? + 4;
                let head = self.buffer.split_to(end).freeze();
                let upgrades = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let upgrades = upgrades.contains("upgrade: websocket");
                self.mode = if upgrades { Mode::Frames } else { Mode::Raw };
                Some(Piece::Http(head))
            }
            Mode::Raw if self.buffer.is_empty() => None,
            Mode::Raw => Some(Piece::Http(self.buffer.split().freeze())),
            Mode::Frames => self.frame(),
            Mode::Long(_) if self.buffer.is_empty() => None,
            Mode::Long(left) => {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                let left = left - length as u64;
                self.mode = if left == 0 { Mode::Frames } else { Mode::Long(left) };
                Some(Piece::Part(self.buffer.split_to(length).freeze()))
            }
        }
    }

    fn frame(&mut self) -> Option<Piece> {
        let buffer = &self.buffer;
        let (first, second) = (*buffer.first()?, *buffer.get(1)?);
        let (length, mut header) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?), 10),
            length => (u64::from(length), 2),
        };
        let masked = second & 0x80 != 0;
        let mask: [u8; 4] = match masked {
            true => buffer.get(header..header + 4)?.try_into().ok()?,
            false => [0; 4],
        };
        header += if masked { 4 } else { 0 };
        let Some(length) = usize::try_from(length).ok().filter(|it| *it <= FRAME_BYTES_MAX) else {
            self.mode = Mode::Long(length.saturating_add(header as u64));
            return self.next();
        };
        if buffer.len() < header + length {
            return None;
        }
        let wire = self.buffer.split_to(header + length).freeze();
        let mut payload = wire.clone();
        payload.advance(header);
        if mask != [0; 4] {
            let unmasked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            payload = unmasked.collect();
        }
        Some(Piece::Frame(Frame { wire, opcode: first & 0x0f, payload }))
    }
}

/// A frame on one line, behind some words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    before: &'static str,
    frame: &'a Frame,
}

impl From<Said<'_>> for Text {
    fn from(said: Said<'_>) -> Self {
        let (before, frame) = (said.before, said.frame.clone());
        Self::later(move || format!("{before}{}", frame.describe()))
    }
}

/// Counts the frames of one direction of a connection, as the network is given them.
#[derive(Debug)]
pub(crate) struct Counted {
    /// The host that opened the connection.
    pub(crate) client: Arc<str>,
    port: u16,
    to_server: bool,
    frames: u64,
}

impl Counted {
    pub(crate) fn new(client: &Arc<str>, port: u16, to_server: bool) -> Self {
        Self { client: Arc::clone(client), port, to_server, frames: 0 }
    }

    /// The next frame, with what is in it.
    pub(crate) fn next(&mut self, payload: &Bytes) -> Passage {
        self.frames += 1;
        let (client, payload) = (Arc::clone(&self.client), payload.clone());
        let Self { port, to_server, frames: nth, .. } = *self;
        Passage { client, port, to_server, nth, payload }
    }
}

impl Frame {
    /// A whole, unfragmented frame. One that goes to a server has to be masked; a mask of zeros
    /// does.
    pub(crate) fn encode(opcode: u8, payload: &[u8], masked: bool) -> Bytes {
        let mut wire = vec![0x80 | opcode];
        let mask_bit = if masked { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..=125 => wire.push(mask_bit | u8::try_from(length).unwrap_or(0)),
            length @ 126..=0xffff => {
                wire.push(mask_bit | 126);
                wire.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
            }
            length => {
                wire.push(mask_bit | 127);
                wire.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if masked {
            wire.extend_from_slice(&[0; 4]);
        }
        wire.extend_from_slice(payload);
        wire.into()
    }

    /// Whether it is a message by itself: no control frame, no fragment, not compressed.
    pub(crate) fn is_message(&self) -> bool {
        self.wire.first().is_some_and(|first| first & 0xf0 == 0x80)
            && matches!(self.opcode, TEXT | BINARY)
    }

    /// Its text, if it is a text frame.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.payload).ok().filter(|_| self.opcode == TEXT)
    }

    /// What [`describe`](Self::describe) says behind some words, when somebody asks.
    pub(crate) fn said(&self, before: &'static str) -> Said<'_> {
        Said { before, frame: self }
    }

    /// The frame on one short line, without anything that differs from run to run.
    pub(crate) fn describe(&self) -> String {
        match self.opcode {
            TEXT => match serde_json::from_slice(&self.payload) {
                Ok(Value::Object(object)) => describe_object(&object),
                _ => format!(
                    "text of {} bytes: {}",
                    self.payload.len(),
                    short(&String::from_utf8_lossy(&self.payload), 40)
                ),
            },
            BINARY => format!("binary of {} bytes", self.payload.len()),
            CLOSE => match &self.payload[..] {
                [high, low, reason @ ..] => format!(
                    "close {} {}",
                    u16::from_be_bytes([*high, *low]),
                    String::from_utf8_lossy(reason)
                ),
                _ => "close".to_owned(),
            },
            9 => "ws-ping".to_owned(),
            10 => "ws-pong".to_owned(),
            opcode => format!("frame with opcode {opcode}"),
        }
    }
}

/// `type key=value …`, with long values cut.
fn describe_object(object: &serde_json::Map<String, Value>) -> String {
    let mut text = match object.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        _ => "object".to_owned(),
    };
    for (name, value) in object.iter().filter(|(name, _)| *name != "type" && *name != "fill") {
        let value = match value {
            Value::String(value) => short(value, 16),
            value => short(&value.to_string(), 48),
        };
        text.push(' ');
        text.push_str(name);
        text.push('=');
        text.push_str(&value);
    }
    text
}

fn short(text: &str, length_max: usize) -> String {
    let clean = text.replace(|c: char| c.is_control(), "·");
    match clean.char_indices().nth(length_max) {
        None => clean,
        Some((end, _)) => format!("{}…", &clean[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_cut_into_head_and_frames_however_it_is_torn() {
        let mut wire = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n".to_vec();
        let long = "x".repeat(70_000);
        for payload in ["a", &long[..200], &long] {
            wire.extend_from_slice(&Frame::encode(TEXT, payload.as_bytes(), false));
        }
        for step in [1, 7, 1_000, wire.len()] {
            let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
            for chunk in wire.chunks(step) {
                splitter.push(chunk);
                while let Some(piece) = splitter.next() {
                    pieces.push(piece);
                }
            }
            assert_eq!(pieces.len(), 4, "step {step}");
            assert!(splitter.at_boundary());
            let Piece::Frame(last) = &pieces[3] else { panic!("a frame was expected") };
            assert_eq!(last.payload.len(), long.len());
        }
    }

    #[test]
    fn a_response_without_upgrade_passes_as_it_is() {
        let mut splitter = Splitter::default();
        splitter.push(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}");
        assert!(matches!(splitter.next(), Some(Piece::Http(_))));
        assert_eq!(splitter.next(), Some(Piece::Http(Bytes::from_static(b"{}"))));
        assert!(!splitter.at_boundary());
    }

    #[test]
    fn a_frame_that_is_too_long_passes_in_parts_and_the_next_one_is_whole() {
        let mut splitter = Splitter { mode: Mode::Frames, ..Splitter::default() };
        let long = Frame::encode(TEXT, &vec![b'x'; FRAME_BYTES_MAX + 1], true);
        let mut passed = 0;
        for chunk in long.chunks(1 << 20) {
            splitter.push(chunk);
            while let Some(piece) = splitter.next() {
                let Piece::Part(part) = piece else { panic!("a part was expected") };
                passed += part.len();
            }
        }
        assert_eq!(passed, long.len());
        splitter.push(&Frame::encode(TEXT, b"a", true));
        assert!(matches!(splitter.next(), Some(Piece::Frame(frame)) if frame.is_message()));
    }

    #[test]
    fn a_head_without_an_end_is_not_held_for_ever() {
        let mut splitter = Splitter::default();
        splitter.push(&vec![b'x'; HEAD_BYTES_MAX + 1]);
        assert!(
            matches!(splitter.next(), Some(Piece::Http(bytes)) if bytes.len() > HEAD_BYTES_MAX)
        );
        assert!(!splitter.upgraded());
    }

    #[test]
    fn frames_are_described_on_one_line() {
        let frame = |text: &str| Frame {
            wire: Bytes::new(),
            opcode: TEXT,
            payload: Bytes::copy_from_slice(text.as_bytes()),
        };
        let event = r#"{"agent_seq":7,"type":"note","id":"p1-3","key":"p1-3","fill":"xxxx"}"#;
        assert_eq!(frame(event).describe(), "note agent_seq=7 id=p1-3 key=p1-3");
        assert_eq!(frame("{\n").describe(), "text of 2 bytes: {·");
    }
}
