//! The log, on standard error; and the counter of marks, which listens beside it.

use std::collections::BTreeMap;
use std::fmt;

use gapless::marks;
use gapless::net::trace;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use crate::args::{LogFormat, LogLevel};

/// The one label of a metric: its name and its value.
pub(crate) type Label = [(&'static str, &'static str); 1];

/// Counts the marks that are reached, by name.
#[derive(Clone)]
pub(crate) struct MarkCounts {
    family: Family<Label, Counter>,
    /// The same counters, to be found without a lock.
    counters: BTreeMap<&'static str, Counter>,
}

impl MarkCounts {
    /// Every mark that is linked in, never reached.
    pub(crate) fn new() -> Self {
        let family = Family::<Label, Counter>::default();
        let counter = |mark| (mark, family.get_or_create_owned(&[("mark", mark)]));
        let counters = marks::all().into_iter().map(counter).collect();
        Self { family, counters }
    }

    /// The counters, to be shown.
    pub(crate) fn family(&self) -> &Family<Label, Counter> {
        &self.family
    }
}

impl<S: Subscriber> Layer<S> for MarkCounts {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut MarkVisitor(self));
    }
}

struct MarkVisitor<'a>(&'a MarkCounts);

impl Visit for MarkVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "mark"
            && let Some(counter) = self.0.counters.get(value)
        {
            counter.inc();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// What listens to spans, beside the log.
pub(crate) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts to log. To be called once in a process.
pub(crate) fn start(
    format: LogFormat,
    level: LogLevel,
    marks: Option<MarkCounts>,
    spans: Option<SpanLayer>,
) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Other crates say on the lower levels what passes through them, and that may be a secret.
    // Spans are for whoever wants details, and cost nothing otherwise.
    let logged = if level >= LevelFilter::DEBUG { LevelFilter::INFO } else { LevelFilter::OFF };
    let ours = Targets::new()
        .with_target(marks::TARGET, LevelFilter::OFF)
        .with_target(trace::TARGET, logged)
        .with_target("gapless", level)
        .with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_span_events(FmtSpan::CLOSE);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let marks = marks
        .map(|marks| marks.with_filter(Targets::new().with_target(marks::TARGET, Level::TRACE)));
    tracing_subscriber::registry().with(spans).with(lines.with_filter(ours)).with(marks).init();
}
