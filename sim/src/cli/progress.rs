//! Says how something long gets on: one line that changes on a terminal, else a line now and then.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::real_time::now;

/// How often a line is written where no terminal shows progress.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How often a line on a terminal is written anew.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// A line of progress.
pub(super) struct Meter<'a> {
    began: Instant,
    said: Instant,
    terminal: bool,
    quiet: bool,
    err: &'a mut dyn Write,
}

impl<'a> Meter<'a> {
    /// Begins to count the time.
    pub(super) fn new(quiet: bool, err: &'a mut dyn Write) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        Self { began: now(), said: now(), terminal, quiet, err }
    }

    /// How long it takes already.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Says something if it is time to. Progress that nobody can see stops nothing.
    pub(super) fn say(&mut self, line: impl FnOnce(Duration) -> String) {
        let every = if self.terminal { REDRAW_EVERY } else { LINE_EVERY };
        if self.quiet || self.said.elapsed() < every {
            return;
        }
        self.said = now();
        let line = line(self.began.elapsed());
        let _ = match self.terminal {
            true => write!(self.err, "\r\x1b[2K{line}"),
            false => writeln!(self.err, "{line}"),
        };
        let _ = self.err.flush();
    }

    /// Takes the line away from a terminal.
    pub(super) fn clear(&mut self) {
        if self.terminal {
            let _ = write!(self.err, "\r\x1b[2K");
            let _ = self.err.flush();
        }
    }
}
