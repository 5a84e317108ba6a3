//! What the parsers of frames share: one JSON object per WebSocket text frame.

use serde::{Deserialize, Serialize};

use crate::recovery::MAX_SEQUENCE;

/// A frame that is not one of the protocol's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not JSON at all, or not an object.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    /// An object without a `type`.
    #[error("the object has no field `type` that is a string")]
    NoType,
    /// A `type` that this side does not know; newer peers may send such frames.
    #[error("unknown type `{0}`")]
    UnknownType(String),
    /// A field is missing or has an impossible value.
    #[error("`{kind}` frame: {problem}")]
    BadField {
        /// The `type` of the frame.
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

pub(crate) fn parse_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, FrameError> {
    // A list would be taken for a struct's fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(FrameError::NotAnObject("it does not begin with `{`".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| FrameError::NotAnObject(error.to_string()))
}

pub(crate) fn fields<'a, T: Deserialize<'a>>(
    kind: &'static str,
    text: &'a str,
) -> Result<T, FrameError> {
    serde_json::from_str(text).map_err(|error| bad(kind, error.to_string()))
}

/// Whether all of them can be sequences, or 0.
pub(crate) fn in_range(
    kind: &'static str,
    numbers: impl IntoIterator<Item = u64>,
) -> Result<(), FrameError> {
    match numbers.into_iter().find(|number| *number > MAX_SEQUENCE) {
        Some(number) => Err(bad(kind, format!("{number} is more than {MAX_SEQUENCE}"))),
        None => Ok(()),
    }
}

pub(crate) fn bad(kind: &'static str, problem: String) -> FrameError {
    FrameError::BadField { kind, problem }
}

pub(crate) fn unknown(kind: &str) -> FrameError {
    FrameError::UnknownType(kind.chars().take(64).collect())
}

/// A sequence: JSON numbers that are whole and in range, also when written as `4.0`.
pub(crate) fn integer(value: &serde_json::Value) -> Option<u64> {
    let number = match (value.as_u64(), value.as_f64()) {
        (Some(number), _) => number,
        (None, Some(number))
            if number >= 0.0 && number.fract() == 0.0 && number <= MAX_SEQUENCE as f64 =>
        {
            number as u64
        }
        _ => return None,
    };
    (number <= MAX_SEQUENCE).then_some(number)
}

pub(crate) fn tagged<T: Serialize>(kind: &str, fields: &T) -> String {
    let fields = serde_json::to_string(fields).expect("a frame is always JSON");
    match fields.as_str() {
        "{}" => format!("{{\"type\":\"{kind}\"}}"),
        fields => format!("{{\"type\":\"{kind}\",{}", &fields[1..]),
    }
}
