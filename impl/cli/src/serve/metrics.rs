//! What `/metrics` shows. `docs/serve.md` has the names.

use std::sync::{Mutex, PoisonError};

use gapless::events::driver::ServerHandle as EventsHandle;
use gapless::session::driver::ServerHandle as SessionsHandle;
use gapless::tasks::driver::ControllerHandle;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::logging::{Label, MarkCounts};
use crate::tls::HandshakeFailures;

/// The content type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Which WebSockets were closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabels {
    protocol: &'static str,
    code: u16,
}

/// The counters, and how to show them.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    pub(crate) events_appended: Counter,
    pub(crate) events_repeated: Counter,
    pub(crate) events_sent: Counter,
    pub(crate) events_replayed: Counter,
    pub(crate) gaps: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) handshake_failures: HandshakeFailures,
    resyncs: Family<Label, Counter>,
    publishes_refused: Family<Label, Counter>,
    token_reloads: Family<Label, Counter>,
    responses: Family<[(&'static str, u16); 1], Counter>,
    closes: Family<CloseLabels, Counter>,
    connections: Family<Label, Gauge>,
    queues: Family<Label, Gauge>,
}

/// Whom to ask for what is not counted but is there.
pub(crate) struct Handles {
    pub(crate) events: EventsHandle,
    pub(crate) tasks: ControllerHandle,
    pub(crate) sessions: SessionsHandle,
}

impl Metrics {
    pub(crate) fn new(marks: &MarkCounts) -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            events_appended: Counter::default(),
            events_repeated: Counter::default(),
            events_sent: Counter::default(),
            events_replayed: Counter::default(),
            gaps: Counter::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            handshake_failures: HandshakeFailures::default(),
            resyncs: Family::default(),
            publishes_refused: Family::default(),
            token_reloads: Family::default(),
            responses: Family::default(),
            closes: Family::default(),
            connections: Family::default(),
            queues: Family::default(),
        };
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = metrics.registry(marks);
        metrics
    }

    fn registry(&self, marks: &MarkCounts) -> Registry {
        let mut registry = Registry::with_prefix("gapless");
        let counters = [
            ("events_appended", "Events that are new in the log", &self.events_appended),
            (
                "events_repeated",
                "Events that were published again and were in the log already",
                &self.events_repeated,
            ),
            ("events_sent", "Events that were given to connections", &self.events_sent),
            (
                "events_replayed",
                "Different events of the replays that came to their end",
                &self.events_replayed,
            ),
            ("gaps", "How often a subscriber was told that events are lost", &self.gaps),
            ("received_bytes", "Bytes that were read from connections", &self.received_bytes),
            ("sent_bytes", "Bytes that were written to connections", &self.sent_bytes),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let families = [
            ("resyncs", "Resyncs that came to their end, by verdict", &self.resyncs),
            (
                "publishes_refused",
                "Events that were not stored, as far as known, by reason",
                &self.publishes_refused,
            ),
            (
                "token_reloads",
                "How often the token file was read again, by result",
                &self.token_reloads,
            ),
            (
                "tls_handshakes_failed",
                "TLS handshakes that came to nothing, by reason",
                self.handshake_failures.family(),
            ),
        ];
        for (name, help, family) in families {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "responses",
            "Answers to HTTP requests, by status",
            self.responses.clone(),
        );
        registry.register(
            "closes",
            "WebSockets that the server has closed, by protocol and code",
            self.closes.clone(),
        );
        registry.register(
            "connections",
            "WebSockets that are open, by protocol",
            self.connections.clone(),
        );
        registry.register(
            "queue_length",
            "Requests that wait for the core of a protocol",
            self.queues.clone(),
        );
        registry.register(
            "marks",
            "Named places of the library that were reached",
            marks.family().clone(),
        );
        registry
    }

    pub(crate) fn publish_refused(&self, reason: &'static str) {
        self.publishes_refused.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn resync(&self, verdict: &'static str) {
        self.resyncs.get_or_create(&[("verdict", verdict)]).inc();
    }

    pub(crate) fn token_reload(&self, result: &'static str) {
        self.token_reloads.get_or_create(&[("result", result)]).inc();
    }

    pub(crate) fn response(&self, status: u16) {
        self.responses.get_or_create(&[("status", status)]).inc();
    }

    /// Everything, as text.
    pub(crate) fn text(&self, handles: &Handles) -> String {
        let Handles { events, tasks, sessions } = handles;
        let now = [
            ("events", events.sockets(), events.waiting()),
            ("tasks", tasks.sockets(), tasks.waiting()),
            ("sessions", sessions.sockets(), sessions.waiting()),
        ];
        let mut text = String::new();
        // Held while counters are brought up to date: another request may do the same.
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        for (protocol, sockets, waiting) in now {
            let set = |gauges: &Family<Label, Gauge>, value: usize| {
                gauges.get_or_create(&[("protocol", protocol)]).set(value as i64);
            };
            set(&self.connections, sockets.count());
            set(&self.queues, waiting);
            for (code, count) in sockets.closes() {
                let labels = CloseLabels { protocol, code: code.0 };
                let counter = self.closes.get_or_create(&labels);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
        encode(&mut text, &registry).expect("a string takes everything");
        text
    }
}
