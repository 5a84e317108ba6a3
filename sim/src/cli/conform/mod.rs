//! `conform`, `record` and `adapter`: other implementations.

mod attach;
mod case;
mod matrix;
mod record;
mod report;
mod schema;
mod select;
mod suite;

use std::io::{self, Write};

use super::args::{AdapterArgs, ConformArgs, ConformCommand};
use super::{Failure, mutants, usage};
use crate::conform::Reference;
use crate::conform::adapter::serve;
use crate::exit;

pub(super) use self::record::record;

pub(super) fn run(
    args: &ConformArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    match &args.other {
        Some(ConformCommand::Matrix(args)) => matrix::run(args, out),
        Some(ConformCommand::Schema(args)) => schema::run(args, out),
        None => suite::run(&args.play, out, err),
    }
}

/// Speaks over the real standard output: what is made for people to read leaves out control
/// characters, which are a part of what is said here.
pub(super) fn adapter(args: &AdapterArgs) -> Result<u8, Failure> {
    let mutant = args.mutant.as_deref().map(mutants::named).transpose()?;
    let mut node = Reference::new(attach::role(&args.role)?, mutant.map(|mutant| mutant.id))
        .map_err(|error| usage(error, "give another `--role`"))?;
    match serve(&mut node, &mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => Ok(exit::OK),
        Err(problem) => Err(Failure::Run(format!("error: {problem}\n"))),
    }
}
