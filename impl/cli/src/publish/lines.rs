//! Lines become events, with ids that are the same whenever the input is.

use gapless::AgentId;
use gapless::events::driver::Publication;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// The longest line that is read, in bytes; servers take less.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// How much of a hash is an id, in bytes.
const ID_HASH_BYTES: usize = 16;

/// A line that is an event.
pub(super) struct Line {
    /// Counts from 1.
    pub(super) number: u64,
    pub(super) publication: Publication,
}

impl Line {
    pub(super) fn bytes(&self) -> usize {
        self.publication.payload.get().len()
    }
}

/// How ids are made.
pub(super) enum Ids {
    /// `PREFIX-LINE`.
    Numbered(String),
    /// From the line and the id of the line before it, which is here. So two inputs have the same
    /// ids exactly as far as they are the same.
    Chained(Vec<u8>),
}

impl Ids {
    fn next(&mut self, number: u64, text: &str) -> String {
        match self {
            Self::Numbered(prefix) => format!("{prefix}-{number}"),
            Self::Chained(before) => {
                let hash = Sha256::new().chain_update(&*before).chain_update(text).finalize();
                *before = hash.to_vec();
                hash.iter().take(ID_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()
            }
        }
    }
}

/// The lines of an input.
pub(super) struct Lines<R> {
    input: R,
    agent: AgentId,
    kind: String,
    ids: Ids,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(input: R, agent: AgentId, kind: String, ids: Ids) -> Self {
        Self { input, agent, kind, ids, number: 0 }
    }

    /// Hands on one event after the other, until the input ends or a line is none.
    pub(super) async fn read(mut self, lines: mpsc::Sender<Result<Line, Failure>>) {
        while let Some(line) = self.next().await.transpose() {
            let wrong = line.is_err();
            if lines.send(line).await.is_err() || wrong {
                return;
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let mut bytes = Vec::new();
            let mut limited = (&mut self.input).take(LINE_BYTES_MAX + 1);
            let read = limited.read_until(b'\n', &mut bytes).await;
            read.map_err(|error| Failure::new(format!("standard input cannot be read: {error}")))?;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.number += 1;
            let number = self.number;
            let wrong = |problem: String| {
                Failure::new(format!("line {number} {problem}"))
                    .hint("each line must be a JSON object; those before it are published")
            };
            if bytes.len() as u64 > LINE_BYTES_MAX {
                return Err(wrong(format!("has more than {LINE_BYTES_MAX} bytes")));
            }
            let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8".to_owned()))?;
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            if !text.starts_with('{') {
                return Err(wrong("does not begin with `{`".to_owned()));
            }
            let payload = RawValue::from_string(text.to_owned())
                .map_err(|error| wrong(format!("is no JSON: {error}")))?;
            let publication = Publication {
                agent: self.agent.clone(),
                id: Some(self.ids.next(number, text)),
                kind: self.kind.clone(),
                payload,
                after: None,
            };
            return Ok(Some(Line { number, publication }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(input: &str, ids: Ids) -> Vec<Result<(u64, String), String>> {
        let agent = AgentId::parse("a").expect("valid");
        let (sender, mut inbox) = mpsc::channel(100);
        Lines::new(input.as_bytes(), agent, "message".to_owned(), ids).read(sender).await;
        let mut lines = Vec::new();
        while let Some(line) = inbox.recv().await {
            lines.push(match line {
                Ok(line) => Ok((line.number, line.publication.id.expect("an id"))),
                Err(failure) => Err(failure.to_string()),
            });
        }
        lines
    }

    fn ids(lines: &[Result<(u64, String), String>]) -> Vec<String> {
        lines.iter().flatten().map(|(_, id)| id.clone()).collect()
    }

    #[tokio::test]
    async fn a_numbered_id_is_that_of_the_line_and_empty_lines_count() {
        let lines = read("{}\n\n{\"a\":1}", Ids::Numbered("p".to_owned())).await;
        assert_eq!(lines, [Ok((1, "p-1".to_owned())), Ok((3, "p-3".to_owned()))]);
    }

    #[tokio::test]
    async fn chained_ids_are_the_same_exactly_as_far_as_the_inputs_are() {
        let chained = || Ids::Chained(Vec::new());
        let first = ids(&read("{\"a\":1}\n{\"a\":1}\n{\"a\":2}\n", chained()).await);
        assert_ne!(first[0], first[1]);
        assert_eq!(ids(&read("{\"a\":1}\n{\"a\":1}\n{\"a\":2}\n", chained()).await), first);
        let other = ids(&read("{\"a\":1}\n{\"a\":3}\n{\"a\":2}\n", chained()).await);
        assert_eq!(other[0], first[0]);
        assert_ne!(other[1], first[1]);
        assert_ne!(other[2], first[2]);
    }

    #[tokio::test]
    async fn a_line_that_is_no_object_ends_the_input_and_is_named() {
        for wrong in ["[1]", "{\"a\":", "text"] {
            let lines = read(&format!("{{}}\n{wrong}\n{{}}\n"), Ids::Chained(Vec::new())).await;
            assert_eq!(lines.len(), 2, "{wrong}");
            assert!(lines[1].as_ref().is_err_and(|error| error.contains("line 2")), "{lines:?}");
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX as usize));
        let lines = read(&long, Ids::Chained(Vec::new())).await;
        assert!(lines[0].as_ref().is_err_and(|error| error.contains("more than")), "{lines:?}");
    }
}
