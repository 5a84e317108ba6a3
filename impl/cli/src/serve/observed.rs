//! The core of event streams, with what it does counted.

use std::sync::Arc;

use gapless::Core;
use gapless::events::log::{Appended, Reply};
use gapless::events::server::{Input, Output, PublishError};
use gapless::events::wire::ServerFrame;
use gapless::recovery::Instant;

use super::metrics::Metrics;

/// Passes everything on, and counts.
pub(crate) struct Observed<C> {
    pub(crate) core: C,
    pub(crate) metrics: Arc<Metrics>,
}

impl<C: Core<Input = Input, Output = Output>> Core for Observed<C> {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match &input {
            Input::Stored(_, Ok(Reply::Appended(Appended::New { .. }))) => {
                self.metrics.events_appended.inc();
            }
            Input::Stored(_, Ok(Reply::Appended(Appended::Existing { .. }))) => {
                self.metrics.events_repeated.inc();
            }
            _ => {}
        }
        self.core.handle(now, input);
    }

    fn poll(&mut self) -> Option<Output> {
        let output = self.core.poll()?;
        match &output {
            Output::Send { frame, .. } => self.sent(frame),
            Output::Published { result: Err(error), .. } => {
                self.metrics.publish_refused(reason(error));
            }
            _ => {}
        }
        Some(output)
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }
}

impl<C> Observed<C> {
    fn sent(&self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Event(_) => {
                self.metrics.events_sent.inc();
            }
            ServerFrame::ResyncAck(ack) => {
                self.metrics.resync(ack.verdict.map_or("base", |verdict| verdict.as_str()));
                self.metrics.events_replayed.inc_by(ack.replayed);
                if ack.gap_detected {
                    self.metrics.gaps.inc();
                }
            }
            ServerFrame::Gap(_) => {
                self.metrics.gaps.inc();
            }
            ServerFrame::Pong(_) | ServerFrame::Stream(_) | ServerFrame::ResyncBegin(_) => {}
        }
    }
}

fn reason(error: &PublishError) -> &'static str {
    match error {
        PublishError::Conflict => "conflict",
        PublishError::Expired => "expired",
        PublishError::Exhausted => "exhausted",
        PublishError::Overloaded => "overloaded",
        PublishError::Unavailable => "unavailable",
        PublishError::Unknown => "unknown",
    }
}
