//! `conform schema`: the form of the lines of the adapter protocol.

use std::io::Write;

use crate::cli::Failure;
use crate::cli::args::{SchemaArgs, Side};
use crate::conform::{Reply, Request};
use crate::exit;

pub(super) fn run(args: &SchemaArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    write!(out, "{}", schema(args.side))?;
    Ok(exit::OK)
}

/// The schema as the files in `docs/schemas/` hold it.
pub(super) fn schema(side: Side) -> String {
    let schema = match side {
        Side::Request => schemars::schema_for!(Request),
        Side::Reply => schemars::schema_for!(Reply),
    };
    serde_json::to_string_pretty(&schema).expect("a schema is always JSON") + "\n"
}
