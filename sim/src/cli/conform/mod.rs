//! `conform`, `record` and `adapter`: other implementations.

pub(super) mod attach;
mod case;
mod matrix;
mod record;
mod report;
mod schema;
mod select;
mod suite;

use std::io::{self, Write};

use super::args::{AdapterArgs, AttachArgs, ConformArgs, ConformCommand, DEFAULT_ANSWER_TIMEOUT};
use super::{Failure, mutants, usage};
use crate::conform::adapter::serve;
use crate::conform::suite::Source;
use crate::conform::{Reference, Role};
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

/// A foreign implementation by its role and the command of its adapter: what it is, and the words
/// after `cargo sim` that attach it.
pub(super) fn foreign(role: &str, adapter: &str) -> Result<(Role, Source, String), Failure> {
    let target = attach::Target::new(&AttachArgs {
        role: Some(role.to_owned()),
        adapter: Some(adapter.to_owned()),
        mutant: None,
        answer_timeout: DEFAULT_ANSWER_TIMEOUT.to_owned(),
    })?;
    let again = target.again("conform");
    let again = again.strip_prefix("gapless-sim ").unwrap_or(&again).to_owned();
    Ok((target.role, target.source, again))
}

/// Speaks over the real standard output: what is made for people to read leaves out control
/// characters, which are a part of what is said here.
pub(super) fn adapter(args: &AdapterArgs) -> Result<u8, Failure> {
    if args.live {
        return super::live::adapter(args, attach::role(&args.role)?);
    }
    let mutant = args.mutant.as_deref().map(mutants::named).transpose()?;
    let mut node = Reference::new(attach::role(&args.role)?, mutant.map(|mutant| mutant.id))
        .map_err(|error| usage(error, "give another `--role`"))?;
    match serve(&mut node, &mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => Ok(exit::OK),
        Err(problem) => Err(Failure::Run(format!("error: {problem}\n"))),
    }
}
