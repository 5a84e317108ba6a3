//! A node whose conversation is written down: what `gapless-sim record` does.

use std::sync::{Arc, Mutex, PoisonError};

use super::node::{Node, NodeError, SharedNode};
use super::protocol::{Hello, Reply, Request, VERSION};

/// The lines of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// What was asked.
    pub asked: String,
    /// What was answered.
    pub answered: String,
}

/// The lines of a conversation that goes on.
pub type SharedLines = Arc<Mutex<Lines>>;

/// A node, and what is said to it and by it.
pub(super) struct Recorded {
    node: SharedNode,
    hello: Hello,
    lines: SharedLines,
}

impl Recorded {
    /// Writes down from here on. The introduction is already over, and written down as well.
    pub(super) fn new(node: SharedNode, hello: &Hello, lines: SharedLines) -> Self {
        let recorded = Self { node, hello: hello.clone(), lines };
        let ask = Request::Hello { protocol: vec![VERSION], nonce: hello.nonce.clone() };
        recorded.asked(&ask);
        recorded.answered(&Reply::Hello(hello.clone()));
        recorded
    }

    fn asked(&self, request: &Request) {
        let line = serde_json::to_string(request).expect("a request is always JSON");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.asked += &line;
        lines.asked.push('\n');
    }

    fn answered(&self, reply: &Reply) {
        let line = serde_json::to_string(reply).expect("a reply is always JSON");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.answered += &line;
        lines.answered.push('\n');
    }
}

impl Node for Recorded {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn exchange(&mut self, request: &Request) -> Result<Reply, NodeError> {
        self.asked(request);
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = node.exchange(request)?;
        drop(node);
        self.answered(&reply);
        Ok(reply)
    }

    fn finish(&mut self) -> Result<(), NodeError> {
        self.asked(&Request::Stop);
        self.node.lock().unwrap_or_else(PoisonError::into_inner).finish()
    }
}
