//! An adapter whose process is started when it is asked for the first time.
//!
//! Most cases need one host of the four that a side may have, and a process may cost a quarter of a
//! second.

use super::node::{Node, NodeError};
use super::process::{Launch, Process};
use super::protocol::{Hello, Reply, Request};

/// A node that is a process as long as it is needed.
#[derive(Debug)]
pub(super) struct OnDemand {
    launch: Launch,
    nonce: String,
    /// As another process of the same adapter has introduced itself.
    hello: Hello,
    process: Option<Process>,
}

impl OnDemand {
    pub(super) fn new(launch: &Launch, nonce: String, hello: &Hello) -> Self {
        Self { launch: launch.clone(), nonce, hello: hello.clone(), process: None }
    }

    /// A node with a process that runs already.
    pub(super) fn running(launch: &Launch, process: Process) -> Self {
        let hello = process.hello().clone();
        let nonce = hello.nonce.clone();
        Self { launch: launch.clone(), nonce, hello, process: Some(process) }
    }

    fn start(&self) -> Result<Process, NodeError> {
        let process = Process::start(&self.launch, &self.nonce)?;
        let same = Hello { nonce: self.hello.nonce.clone(), ..process.hello().clone() };
        match same == self.hello {
            true => Ok(process),
            false => Err(NodeError::Nondeterministic(
                "two of its processes introduce themselves differently".to_owned(),
            )),
        }
    }
}

impl Node for OnDemand {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn exchange(&mut self, request: &Request) -> Result<Reply, NodeError> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => self.start()?,
        };
        let reply = process.exchange(request)?;
        // One that has failed is of no use any more.
        self.process = Some(process);
        Ok(reply)
    }

    fn finish(&mut self) -> Result<(), NodeError> {
        self.process.take().map_or(Ok(()), Process::stop)
    }
}
