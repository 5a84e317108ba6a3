//! Cuts what a command writes into pieces [TK-4].
//!
//! A piece is full, or has waited long enough, or is the last. It ends at the boundary of a UTF-8
//! code point where it can, so that text stays text; bytes that are no UTF-8 go as they are.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::recovery::Instant;

/// One stream of an attempt, on its way into pieces.
#[derive(Debug)]
pub struct Chunker {
    chunk_bytes: usize,
    flush_after: Duration,
    buffer: BytesMut,
    /// When what is buffered has waited long enough.
    due: Option<Instant>,
    /// The flush before left an incomplete code point behind; it waits once and no longer.
    waited: bool,
}

/// The longest code point, in bytes.
const CODE_POINT_MAX: usize = 4;

impl Chunker {
    /// Pieces of at most `chunk_bytes`, at least 4, none of which waits longer than twice
    /// `flush_after`.
    pub fn new(chunk_bytes: usize, flush_after: Duration) -> Self {
        let chunk_bytes = chunk_bytes.max(CODE_POINT_MAX);
        Self { chunk_bytes, flush_after, buffer: BytesMut::new(), due: None, waited: false }
    }

    /// Takes what was written.
    pub fn push(&mut self, now: Instant, data: &[u8]) {
        if !data.is_empty() {
            self.buffer.extend_from_slice(data);
            self.due.get_or_insert(now + self.flush_after);
        }
    }

    /// The next piece that is full or due. To be called until it returns `None`.
    pub fn next(&mut self, now: Instant) -> Option<Bytes> {
        if self.buffer.len() >= self.chunk_bytes {
            let whole = whole_code_points(&self.buffer[..self.chunk_bytes]);
            return Some(self.take(now, whole));
        }
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        let whole = match self.waited {
            true => self.buffer.len(),
            false => whole_code_points(&self.buffer),
        };
        if whole == 0 {
            // A part of a code point and nothing else: the rest may be on its way.
            self.waited = true;
            self.due = Some(now + self.flush_after);
            return None;
        }
        Some(self.take(now, whole))
    }

    /// The pieces that are left, when nothing more is written.
    pub fn finish(&mut self) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        while self.buffer.len() > self.chunk_bytes {
            let whole = whole_code_points(&self.buffer[..self.chunk_bytes]);
            pieces.push(self.buffer.split_to(whole).freeze());
        }
        if !self.buffer.is_empty() {
            pieces.push(self.buffer.split().freeze());
        }
        self.due = None;
        pieces
    }

    /// When to call [`next`](Self::next) at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// How many bytes wait.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn take(&mut self, now: Instant, length: usize) -> Bytes {
        let piece = self.buffer.split_to(length).freeze();
        self.waited = !self.buffer.is_empty() && self.buffer.len() < CODE_POINT_MAX;
        self.due = (!self.buffer.is_empty()).then(|| now + self.flush_after);
        piece
    }
}

/// How many of the bytes there are without a code point that is begun at the end. All, if the end
/// is no UTF-8.
fn whole_code_points(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(CODE_POINT_MAX - 1);
    for at in (tail..bytes.len()).rev() {
        let needed = match bytes[at] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            // In the middle of one: its first byte is further ahead.
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        let begun = bytes.len() - at < needed && incomplete(&bytes[at..]);
        return if begun { at } else { bytes.len() };
    }
    bytes.len()
}

/// Whether the bytes are the beginning of a code point, and not something that never becomes one.
fn incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLUSH: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_piece_is_cut_when_it_is_full_or_has_waited() {
        let mut chunker = Chunker::new(4, FLUSH);
        chunker.push(at(0), b"abcdef");
        assert_eq!(chunker.next(at(0)).as_deref(), Some(&b"abcd"[..]));
        assert_eq!(chunker.next(at(0)), None);
        assert_eq!(chunker.deadline(), Some(at(100)));
        assert_eq!(chunker.next(at(100)).as_deref(), Some(&b"ef"[..]));
        assert_eq!(chunker.deadline(), None);
    }

    #[test]
    fn a_code_point_that_is_split_is_carried_to_the_next_piece() {
        let mut chunker = Chunker::new(16, FLUSH);
        chunker.push(at(0), "10 €".as_bytes().split_at(4).0);
        assert_eq!(chunker.next(at(100)).as_deref(), Some(&b"10 "[..]));
        chunker.push(at(150), &"€".as_bytes()[1..]);
        assert_eq!(chunker.next(at(200)).as_deref(), Some("€".as_bytes()));
    }

    #[test]
    fn an_end_that_never_comes_is_not_waited_for() {
        let mut chunker = Chunker::new(16, FLUSH);
        chunker.push(at(0), &[0xe2]);
        assert_eq!(chunker.next(at(100)), None);
        assert_eq!(chunker.next(at(200)).as_deref(), Some(&[0xe2][..]));
    }

    #[test]
    fn what_is_left_comes_at_the_end() {
        let mut chunker = Chunker::new(4, FLUSH);
        chunker.push(at(0), b"abcdefghi");
        let pieces = chunker.finish();
        assert_eq!(pieces, [&b"abcd"[..], b"efgh", b"i"]);
        assert_eq!(chunker.buffered(), 0);
    }

    proptest! {
        #[test]
        fn the_pieces_are_what_was_written(
            writes in prop::collection::vec((0_u64..300, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            chunk_bytes in 4_usize..32,
        ) {
            let mut chunker = Chunker::new(chunk_bytes, FLUSH);
            let (mut now, mut written, mut pieces) = (0, Vec::new(), Vec::new());
            for (pause, data) in &writes {
                now += pause;
                written.extend_from_slice(data);
                chunker.push(at(now), data);
                pieces.extend(std::iter::from_fn(|| chunker.next(at(now))));
                prop_assert!(chunker.buffered() < chunk_bytes);
            }
            // Nothing waits for more than two flushes.
            for _ in 0..2 {
                now += 100;
                pieces.extend(std::iter::from_fn(|| chunker.next(at(now))));
            }
            prop_assert_eq!(chunker.buffered(), 0);
            prop_assert!(pieces.iter().all(|piece| (1..=chunk_bytes).contains(&piece.len())));
            prop_assert_eq!(pieces.concat(), written);
        }

        #[test]
        fn text_stays_text(text in "\\PC{0,60}", chunk_bytes in 4_usize..16, split in 1_usize..5) {
            let mut chunker = Chunker::new(chunk_bytes, FLUSH);
            let mut pieces = Vec::new();
            for part in text.as_bytes().chunks(split) {
                chunker.push(at(0), part);
                pieces.extend(std::iter::from_fn(|| chunker.next(at(0))));
            }
            pieces.extend(chunker.finish());
            prop_assert!(pieces.iter().all(|piece| std::str::from_utf8(piece).is_ok()));
        }
    }
}
