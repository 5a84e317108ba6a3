//! Where the output of a command goes.

use std::io::{self, Write};

/// Passes on what is written for as long as somebody reads it. Whoever closes the pipe has seen
/// enough: the command goes on without saying anything, so that its exit code is the same.
pub(super) struct Output<'a> {
    inner: &'a mut dyn Write,
    closed: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(inner: &'a mut dyn Write) -> Self {
        Self { inner, closed: false }
    }

    fn unless_closed<T>(
        &mut self,
        without: T,
        what: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.closed {
            return Ok(without);
        }
        match what(self.inner) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(without)
            }
            done => done,
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_closed(bytes.len(), |inner| inner.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_closed((), |inner| inner.flush())
    }
}
