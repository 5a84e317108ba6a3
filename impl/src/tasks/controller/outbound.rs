//! What is on its way to an agent's socket and has not left.

use std::collections::VecDeque;

use crate::tasks::wire::ControllerMessage;

/// What the names and numbers of a message or of an entry of a list take, in bytes, at most nearly.
const ENTRY_BYTES: usize = 256;

/// Counts the frames that wait for a socket, and their bytes.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    frames: VecDeque<usize>,
    bytes: usize,
}

impl Outbound {
    /// How many frames wait.
    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// How many bytes they have, nearly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, message: &ControllerMessage) {
        let bytes = cost(message);
        self.frames.push_back(bytes);
        self.bytes += bytes;
    }

    /// The oldest frames have left.
    pub(super) fn written(&mut self, frames: usize) {
        for bytes in self.frames.drain(..frames.min(self.frames.len())) {
            self.bytes -= bytes;
        }
    }
}

/// The bytes of a message, nearly.
fn cost(message: &ControllerMessage) -> usize {
    ENTRY_BYTES
        + match message {
            ControllerMessage::Deliver(deliver) => deliver.command.len(),
            ControllerMessage::Error(error) => error.message.len(),
            ControllerMessage::HelloAck(ack) => {
                let finals = ack.acknowledged_finals.as_ref().map_or(0, Vec::len);
                let discarded = ack.discarded.as_ref().map_or(0, Vec::len);
                let replay = ack.output_replay.as_ref().map_or(0, Vec::len);
                ENTRY_BYTES * (finals + discarded + replay)
            }
            ControllerMessage::Query(_) | ControllerMessage::Ack(_) => 0,
        }
}
