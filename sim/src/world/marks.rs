//! Listens to the marks of the code under test.
//!
//! Marks are `tracing` events. One subscriber is installed per process; it listens to their target
//! only, so that the spans of turmoil and tokio cost nothing, and hands each to the recorder of
//! the thread on which the simulation runs.

use std::cell::RefCell;
use std::fmt;
use std::sync::OnceLock;

use gapless::marks::TARGET;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Metadata, Subscriber};

use super::record::Recorder;

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
    static CAPTURED: RefCell<Option<Vec<&'static str>>> = const { RefCell::new(None) };
}

/// Does something, and returns the marks that were reached meanwhile on this thread instead of
/// letting the recorder have them.
///
/// # Errors
///
/// As [`Listening::start`].
pub(crate) fn captured<T>(what: impl FnOnce() -> T) -> Result<(T, Vec<&'static str>), String> {
    install()?;
    CAPTURED.set(Some(Vec::new()));
    let done = what();
    Ok((done, CAPTURED.take().unwrap_or_default()))
}

/// A mark by its name.
pub(crate) fn known(name: &str) -> Option<&'static str> {
    all().iter().find(|mark| **mark == name).copied()
}

fn install() -> Result<(), String> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    match INSTALLED.get_or_init(|| set_global_default(Marks).is_ok()) {
        true => Ok(()),
        false => {
            Err("another `tracing` subscriber is installed in this process, so marks cannot be \
                      seen; install none beside the simulator"
                .to_owned())
        }
    }
}

/// Marks of this thread go to a recorder as long as this lives.
pub(crate) struct Listening(());

impl Listening {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// A sentence, if something else has installed a global subscriber.
    pub(crate) fn start(recorder: Recorder) -> Result<Self, String> {
        install()?;
        RECORDER.set(Some(recorder));
        Ok(Self(()))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        RECORDER.set(None);
    }
}

struct Marks;

impl Subscriber for Marks {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match metadata.target() {
            TARGET => Interest::always(),
            _ => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        let mut name = Name(None);
        event.record(&mut name);
        let Some(mark) = name.0 else { return };
        let captured = CAPTURED
            .with_borrow_mut(|captured| captured.as_mut().map(|marks| marks.push(mark)).is_some());
        if !captured {
            RECORDER.with_borrow(|recorder| {
                if let Some(recorder) = recorder {
                    recorder.mark(mark);
                }
            });
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Name(Option<&'static str>);

impl Visit for Name {
    fn record_str(&mut self, _: &Field, value: &str) {
        self.0 = known(value);
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Every mark that is linked into this binary.
fn all() -> &'static [&'static str] {
    static ALL: OnceLock<Vec<&'static str>> = OnceLock::new();
    ALL.get_or_init(gapless::marks::all)
}
