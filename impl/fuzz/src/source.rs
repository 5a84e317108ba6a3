//! Where the decisions of a run come from: the bytes of the fuzzer, and zeros once they have ended.

use arbitrary::Unstructured;
use gapless::recovery::MAX_SEQUENCE;

/// Bytes, read as decisions.
pub(crate) struct Source<'a>(Unstructured<'a>);

/// The longest text that is taken from the bytes themselves.
const RAW_BYTES_MAX: usize = 48;

/// Texts at which something may break: empty, no name, no ASCII, NUL, a mark that writes backwards,
/// at and beyond the longest id, and two that are names.
const TEXTS: [&str; 12] = [
    "",
    "a",
    "b",
    "x y",
    "é",
    "\0",
    "\u{202e}\u{feff}",
    "\u{1f980}\u{10ffff}",
    "agent-1",
    "a/b",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "9007199254740993",
];

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Whether all bytes are used up. Then every decision is the first of its kind.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// A number below `n`, which is at most 256.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    pub(crate) fn flip(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// True once in `n`.
    pub(crate) fn rarely(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub(crate) fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.below(of.len())]
    }

    pub(crate) fn word(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len())]
    }

    pub(crate) fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flip().then(|| value(self))
    }

    /// Mostly a small number, sometimes one at a limit, sometimes any.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small % 25),
            200..=207 => MAX_SEQUENCE,
            208..=215 => MAX_SEQUENCE - 1,
            216..=219 => MAX_SEQUENCE + 1,
            220..=223 => u64::MAX,
            224..=227 => i64::MAX as u64,
            228..=231 => i64::MAX as u64 + 1,
            232..=235 => 1 << 52,
            _ => self.0.arbitrary().unwrap_or(0),
        }
    }

    /// A number that a stream can have, or 0.
    pub(crate) fn sequence(&mut self) -> u64 {
        self.number().min(MAX_SEQUENCE)
    }

    pub(crate) fn text(&mut self) -> String {
        match self.below(16) {
            15 => String::from_utf8_lossy(self.bytes(RAW_BYTES_MAX)).into_owned(),
            at => TEXTS[at % TEXTS.len()].to_owned(),
        }
    }

    /// The next bytes as they are, `max` at most.
    pub(crate) fn bytes(&mut self, max: usize) -> &'a [u8] {
        let length = self.below(max + 1).min(self.0.len());
        self.0.bytes(length).unwrap_or_default()
    }

    /// All the bytes that are left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let length = self.0.len();
        self.0.bytes(length).unwrap_or_default()
    }

    /// A JSON value of any type, `depth` levels deep at most.
    pub(crate) fn json(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 12 } else { 16 }) {
            0 => "null".to_owned(),
            1 => "true".to_owned(),
            2 => "false".to_owned(),
            3 => format!("{}.0", self.number()),
            4 => format!("-{}", self.number()),
            5 => "1e400".to_owned(),
            6 => "0.5".to_owned(),
            7 | 8 => self.number().to_string(),
            9..=11 => quoted(&self.text()),
            12 | 13 => {
                let items: Vec<_> = (0..self.below(4)).map(|_| self.json(depth - 1)).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let fields: Vec<_> = (0..self.below(4))
                    .map(|_| format!("{}:{}", quoted(&self.text()), self.json(depth - 1)))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }
        }
    }
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// A field that a frame may have, and what belongs there.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) value: fn(&mut Source<'_>) -> String,
}

impl Field {
    pub(crate) const fn new(name: &'static str, value: fn(&mut Source<'_>) -> String) -> Self {
        Self { name, value }
    }
}

/// An object that is nearly a frame: of one of these types, with some of these fields, which mostly
/// have what belongs there; now and then one comes twice, or the end is missing.
pub(crate) fn nearly(source: &mut Source<'_>, kinds: &[&'static str], fields: &[Field]) -> String {
    let kind = match source.below(16) {
        15 => source.json(1),
        _ => quoted(source.word(kinds)),
    };
    let mut parts = vec![format!("\"type\":{kind}")];
    parts.extend(object_parts(source, fields));
    if source.rarely(16) {
        parts.swap_remove(0);
    }
    let text = format!("{{{}}}", parts.join(","));
    match source.below(64) {
        62 => text[..text.floor_char_boundary(text.len() / 2)].to_owned(),
        63 => format!(" \n{text}\t"),
        _ => text,
    }
}

/// An object with some of these fields.
pub(crate) fn object(source: &mut Source<'_>, fields: &[Field]) -> String {
    format!("{{{}}}", object_parts(source, fields).join(","))
}

fn object_parts(source: &mut Source<'_>, fields: &[Field]) -> Vec<String> {
    let mut parts = Vec::new();
    for field in fields {
        let times = match source.below(32) {
            31 => 2,
            24..=30 => 0,
            _ => 1,
        };
        for _ in 0..times {
            let value = match source.below(24) {
                23 => source.json(2),
                _ => (field.value)(source),
            };
            parts.push(format!("\"{}\":{value}", field.name));
        }
    }
    if source.rarely(12) {
        let (name, value) = (source.text(), source.json(3));
        parts.push(format!("{}:{value}", quoted(&name)));
    }
    parts
}

/// A list of up to three.
pub(crate) fn list(source: &mut Source<'_>, item: fn(&mut Source<'_>) -> String) -> String {
    let items: Vec<_> = (0..source.below(4)).map(|_| item(source)).collect();
    format!("[{}]", items.join(","))
}

/// A whole number, rarely as a float.
pub(crate) fn number(source: &mut Source<'_>) -> String {
    match source.rarely(12) {
        true => format!("{}.0", source.number()),
        false => source.number().to_string(),
    }
}

/// A text as JSON.
pub(crate) fn text(source: &mut Source<'_>) -> String {
    quoted(&source.text())
}

/// `true` or `false`.
pub(crate) fn boolean(source: &mut Source<'_>) -> String {
    source.flip().to_string()
}
