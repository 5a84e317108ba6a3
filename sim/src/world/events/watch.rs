//! What can be seen of events on the wire.

use bytes::Bytes;
use gapless::events::wire::{ClientFrame, Gap, ResyncAck, ResyncBegin, ServerFrame};

use crate::history::Seen;
use crate::plan::Strange;
use crate::world::frames::{BINARY, Frame, TEXT};
use crate::world::link::{OVERSIZE, Watch};
use crate::world::record::Recorder;

/// Watches the link of a client.
pub(crate) struct EventWatch {
    pub(crate) client: u32,
    pub(crate) recorder: Recorder,
    /// Whether the client says of nothing by itself where it is.
    pub(crate) marks: bool,
}

impl Watch for EventWatch {
    /// The cursor with which the client resumes can be seen from outside.
    fn sent(&self, _connection: u64, frame: &Frame) {
        if let Some(Ok(ClientFrame::Resync(resync))) = frame.text().map(ClientFrame::parse) {
            if self.marks {
                gapless::mark!("events.resync_sent");
            }
            self.recorder.see(Seen::Resumed {
                client: self.client,
                epoch: resync.epoch.map(|epoch| epoch.to_string()),
                sequence: resync.last_seen_seq,
            });
        }
    }

    /// What the server sends, and in which order, can be seen from outside.
    fn arrived(&self, connection: u64, frame: &Frame) {
        let client = self.client;
        let Some(Ok(frame)) = frame.text().map(ServerFrame::parse) else { return };
        let seen = match frame {
            ServerFrame::Event(event) => {
                event.sequence().map(|sequence| Seen::Arrived { client, connection, sequence })
            }
            ServerFrame::ResyncBegin(ResyncBegin { epoch, from, to, .. }) => {
                let epoch = epoch.to_string();
                Some(Seen::ReplayBegan { client, connection, epoch, from, to })
            }
            ServerFrame::ResyncAck(ResyncAck { current_seq: to, replayed, .. }) => {
                Some(Seen::ReplayEnded { client, connection, to, replayed })
            }
            ServerFrame::Gap(Gap { from, to, .. }) => {
                Some(Seen::Skipped { client, connection, from, to })
            }
            ServerFrame::Pong(_) | ServerFrame::Stream(_) => None,
        };
        if let Some(seen) = seen {
            self.recorder.see(seen);
        }
    }

    /// Whether it carries an event.
    fn is_payload(&self, frame: &Frame) -> bool {
        frame.text().is_some_and(|text| text.contains("\"agent_seq\":"))
    }

    fn strange(&self, frame: Strange, to_server: bool) -> Bytes {
        let text = |text: &str| Frame::encode(TEXT, text.as_bytes(), to_server);
        match (frame, to_server) {
            (Strange::UnknownType, true) => text(r#"{"type":"dance","tempo":120}"#),
            // A type that a client does not know is an event, so this one is of the reserved names.
            (Strange::UnknownType, false) => text(r#"{"type":"error","code":"later"}"#),
            (Strange::Malformed, _) => text(r#"{"type":"ping""#),
            (Strange::BadField, true) => text(r#"{"type":"resync","last_seen_seq":"seven"}"#),
            (Strange::BadField, false) => text(r#"{"type":"note","agent_seq":-7}"#),
            (Strange::Binary, _) => Frame::encode(BINARY, &[0, 1, 2, 255], to_server),
            (Strange::Oversize, _) => Frame::encode(TEXT, &vec![b' '; OVERSIZE], to_server),
            (Strange::StaleAnswer, _) => Bytes::new(),
        }
    }
}
