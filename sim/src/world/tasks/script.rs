//! Commands that do what the plan says, and whose output can be told from every other.

use gapless::tasks::{Attempt, OutputStream};

/// A number for some bytes, the same in every run.
pub(super) use crate::conform::keys::fnv1a as digest;
use crate::plan::{Script, Text};

/// The text of a command that does it.
pub(super) fn command(script: &Script) -> String {
    serde_json::to_string(script).expect("a script is JSON")
}

/// What a command does, by its text.
pub(super) fn parse(command: &str) -> Option<Script> {
    serde_json::from_str(command).ok()
}

/// How many bytes a command writes to a stream in all.
pub(super) fn length(script: &Script, stream: OutputStream) -> u64 {
    let times = match stream {
        OutputStream::Stdout => script.stdout,
        OutputStream::Stderr => script.stderr,
    };
    u64::from(times) * u64::from(script.bytes)
}

/// The bytes of a block.
const BLOCK: u64 = 16;

/// What a command writes to a stream, from one place to another. No two blocks are alike, so that
/// bytes of another place, stream or attempt are seen to be wrong.
pub(super) fn bytes(
    attempt: &Attempt,
    stream: OutputStream,
    text: Text,
    from: u64,
    to: u64,
) -> Vec<u8> {
    let tag = digest(format!("{attempt} {}", stream.as_str()).as_bytes());
    let mut bytes = Vec::new();
    for block in from / BLOCK..to.div_ceil(BLOCK) {
        match text {
            Text::Plain => {
                bytes.extend_from_slice(format!("{:05x}{block:010}\n", tag % 0xf_ffff).as_bytes());
            }
            Text::Wide => {
                // Five digits of three bytes each.
                for place in [10_000, 1_000, 100, 10, 1] {
                    let digit = u32::try_from((block + tag % 89) / place % 10).unwrap_or(0);
                    let digit = char::from_u32(0xff10 + digit).unwrap_or('?');
                    bytes.extend_from_slice(digit.encode_utf8(&mut [0; 4]).as_bytes());
                }
                bytes.push(b'\n');
            }
            Text::Binary => {
                bytes.extend_from_slice(&tag.wrapping_mul(block | 1).to_be_bytes());
                bytes.extend_from_slice(&(0xff00_0000_0000_0000 | block).to_be_bytes());
            }
        }
    }
    let skip = usize::try_from(from % BLOCK).unwrap_or(0);
    let length = usize::try_from(to - from).unwrap_or(0);
    bytes[skip..skip + length].to_vec()
}

#[cfg(test)]
mod tests {
    use gapless::tasks::{AttemptId, TaskId};

    use super::*;

    #[test]
    fn output_is_the_same_however_it_is_asked_for_and_differs_by_stream() {
        let attempt = Attempt {
            task: TaskId::parse("t1").expect("valid"),
            id: AttemptId::parse("a1").expect("valid"),
        };
        for text in [Text::Plain, Text::Wide, Text::Binary] {
            let of = |stream, from, to| bytes(&attempt, stream, text, from, to);
            let whole = of(OutputStream::Stdout, 0, 1_000);
            assert_eq!(whole.len(), 1_000);
            let mut parts = of(OutputStream::Stdout, 0, 333);
            parts.extend(of(OutputStream::Stdout, 333, 334));
            parts.extend(of(OutputStream::Stdout, 334, 1_000));
            assert!(whole == parts, "{text:?}");
            assert!(whole != of(OutputStream::Stderr, 0, 1_000), "{text:?}");
            assert_eq!(std::str::from_utf8(&whole[..960]).is_ok(), text != Text::Binary);
        }
    }
}
