//! The command `gapless-sim`. Everything that it does is in [`gapless_sim::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    gapless_sim::heap::keep();
    let mut out = anstream::stdout();
    let mut err = anstream::stderr();
    ExitCode::from(gapless_sim::cli::main(std::env::args_os(), &mut out, &mut err))
}
