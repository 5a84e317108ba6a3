//! What is in an open file.

use std::ops::Range;

/// Bytes of a piece. A file grows by pieces, so that what is there already is not copied.
const PIECE_BYTES: usize = 64 << 10;

/// The bytes of a file as a read sees them: what is durable, and every write since. A kernel would
/// call it the page cache. Turmoil has the same bytes, and puts them together anew for each read.
#[derive(Debug, Default)]
pub(super) struct Content {
    pieces: Vec<Box<[u8]>>,
    len: usize,
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(bytes, 0);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }

    /// Cuts it, or extends it with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        let len = len as usize;
        let pieces = len.div_ceil(PIECE_BYTES);
        if len < self.len {
            // Nothing but zeros stands behind the end.
            self.pieces.truncate(pieces);
            if let Some(last) = self.pieces.get_mut(len / PIECE_BYTES) {
                last[len % PIECE_BYTES..].fill(0);
            }
        } else {
            self.pieces.resize_with(pieces, || vec![0; PIECE_BYTES].into());
        }
        self.len = len;
    }

    /// Fills as much of a buffer as there is behind an offset, and says how much that is.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let begin = self.len.min(offset as usize);
        let end = self.len.min(begin + buffer.len());
        let mut at = begin;
        while at < end {
            let (piece, from) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let size = (PIECE_BYTES - from).min(end - at);
            buffer[at - begin..][..size].copy_from_slice(&self.pieces[piece][from..][..size]);
            at += size;
        }
        end - begin
    }

    /// The beginning of a range that is not empty, as far as it is in one piece.
    pub(super) fn piece(&self, range: Range<u64>) -> &[u8] {
        let (begin, end) = (range.start as usize, range.end as usize);
        let (piece, from) = (begin / PIECE_BYTES, begin % PIECE_BYTES);
        &self.pieces[piece][from..][..(PIECE_BYTES - from).min(end - begin)]
    }

    /// Puts bytes to an offset; what lies before it and is new is zero.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let begin = offset as usize;
        let end = begin + bytes.len();
        if self.len < end {
            self.set_len(end as u64);
        }
        let mut at = begin;
        while at < end {
            let (piece, from) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let size = (PIECE_BYTES - from).min(end - at);
            self.pieces[piece][from..][..size].copy_from_slice(&bytes[at - begin..][..size]);
            at += size;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Content, PIECE_BYTES};

    /// Offsets around the seams of the pieces.
    fn place() -> impl Strategy<Value = usize> {
        (0..3 * PIECE_BYTES).prop_map(|place| match place % 3 {
            0 => place,
            1 => place % 64,
            _ => place / PIECE_BYTES * PIECE_BYTES + place % 5,
        })
    }

    fn read(content: &Content, offset: usize, size: usize) -> Vec<u8> {
        let mut buffer = vec![0xEE; size];
        let read = content.read(&mut buffer, offset as u64);
        buffer.truncate(read);
        buffer
    }

    proptest! {
        #[test]
        fn it_is_what_a_plain_vector_would_be(
            steps in prop::collection::vec((place(), 0..2 * PIECE_BYTES, any::<bool>()), 1..12),
        ) {
            let (mut content, mut plain) = (Content::default(), Vec::new());
            for (nth, (place, size, cuts)) in steps.into_iter().enumerate() {
                if cuts {
                    content.set_len(place as u64);
                    plain.resize(place, 0);
                } else {
                    let bytes = vec![nth as u8 + 1; size];
                    content.write(&bytes, place as u64);
                    plain.resize(plain.len().max(place + size), 0);
                    plain[place..place + size].copy_from_slice(&bytes);
                }
                prop_assert_eq!(content.len(), plain.len() as u64);
                prop_assert!(read(&content, 0, plain.len() + 9) == plain);
                let there = plain.get(place..).unwrap_or_default();
                prop_assert!(read(&content, place, 100) == there[..there.len().min(100)]);
            }
        }
    }

    #[test]
    fn what_was_cut_off_is_zero_when_it_grows_again() {
        let mut content = Content::of(&[7; 100]);
        content.set_len(10);
        content.set_len(100);
        assert_eq!(read(&content, 0, 200), [[7; 10].as_slice(), &[0; 90]].concat());
    }
}
