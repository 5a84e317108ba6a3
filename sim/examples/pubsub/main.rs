//! The simulator for a protocol that it does not know: a small publish and subscribe.
//!
//! `cargo pubsub 42` runs it; everything that `cargo sim` does this program does for the scenarios in
//! `scenarios/`. See `docs/tutorial.md`.

mod protocol;

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut err) = (anstream::stdout(), anstream::stderr());
    ExitCode::from(gapless_sim::cli::main(std::env::args_os(), &mut out, &mut err))
}
