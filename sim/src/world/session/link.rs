//! What a link knows of the frames of sessions.

use bytes::Bytes;

use crate::plan::Strange;
use crate::world::frames::{BINARY, Frame, TEXT};
use crate::world::link::{OVERSIZE, Watch};

/// Watches the link of a client. What is said on it is seen at both of its ends already.
pub(super) struct SessionLink;

impl Watch for SessionLink {
    fn sent(&self, _connection: u64, _frame: &Frame) {}

    fn arrived(&self, _connection: u64, _frame: &Frame) {}

    /// Whether it has a number.
    fn is_payload(&self, frame: &Frame) -> bool {
        frame
            .text()
            .is_some_and(|text| text.starts_with("{\"seq\":") && !text.starts_with("{\"seq\":0,"))
    }

    fn strange(&self, frame: Strange, to_server: bool) -> Bytes {
        let text = |text: &str| Frame::encode(TEXT, text.as_bytes(), to_server);
        match (frame, to_server) {
            (Strange::UnknownType, true) => text(r#"{"type":"request_planner_data"}"#),
            (Strange::UnknownType, false) => text(r#"{"seq":0,"type":"dance","tempo":120}"#),
            (Strange::Malformed, _) => text(r#"{"type":"ack""#),
            (Strange::BadField, true) => text(r#"{"type":"ack","seq":9007199254740991}"#),
            (Strange::BadField, false) => text(r#"{"seq":-7,"type":"question","text":"?"}"#),
            (Strange::Binary, _) => Frame::encode(BINARY, &[0, 1, 2, 255], to_server),
            (Strange::Oversize, _) => Frame::encode(TEXT, &vec![b' '; OVERSIZE], to_server),
            (Strange::StaleAnswer, _) => Bytes::new(),
        }
    }
}
