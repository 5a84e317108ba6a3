//! The reference implementation behind the lockstep protocol: what `gapless-sim adapter` does.

use std::io::{self, BufRead, Write};

use super::node::Node;
use super::protocol::{LINE_BYTES_MAX, Request, VERSION};

/// Answers requests, one line each, until `stop` or the end of the input.
///
/// # Errors
///
/// A sentence that says which request was wrong, or why no line can be read or written.
pub fn serve(
    node: &mut dyn Node,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<(), String> {
    let mut line = Vec::new();
    let failed = |error: io::Error| format!("the pipe is broken: {error}");
    loop {
        line.clear();
        let mut read = io::Read::take(&mut *input, LINE_BYTES_MAX as u64 + 1);
        if read.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        let request: Request = serde_json::from_slice(&line)
            .map_err(|error| format!("a line is no request: {error}"))?;
        match &request {
            Request::Stop => return Ok(()),
            Request::Hello { protocol, .. } if !protocol.contains(&VERSION) => {
                return Err(format!("version {VERSION} is not offered, but {protocol:?}"));
            }
            _ => {}
        }
        let reply = node.exchange(&request).map_err(|error| error.to_string())?;
        let mut reply = serde_json::to_vec(&reply).expect("a reply is always JSON");
        reply.push(b'\n');
        output.write_all(&reply).and_then(|()| output.flush()).map_err(failed)?;
    }
}
