//! The command, with the programs that tests of the whole workspace have built; otherwise it builds
//! them itself.

use std::path::Path;
use std::process::{Command, Output};

/// Runs it. A kind of load comes first, because the programs belong to it.
pub(crate) fn load(arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_gapless-load"));
    let mut command = Command::new(program);
    command.args(arguments);
    let needed: &[_] = match arguments.first() {
        Some(&"cluster") => &[("--gapless", "gapless")],
        _ => &[("--gapless", "gapless"), ("--sim", "gapless-sim")],
    };
    for (option, name) in needed {
        let path = program.with_file_name(name);
        if path.exists() {
            command.arg(option).arg(path);
        }
    }
    command.output().expect("it starts")
}

/// Everything that it said.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
