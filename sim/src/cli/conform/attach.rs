//! Which implementation is meant, and how it is called on a command line.

use std::time::Duration;

use crate::cli::args::{AttachArgs, DEFAULT_ANSWER_TIMEOUT};
use crate::cli::{Failure, mutants, usage};
use crate::conform::suite::Source;
use crate::conform::{Launch, NodeError, Role};
use crate::scenario::parse_duration;

/// The first line that an adapter gets.
const HELLO: &str = r#"{"type":"hello","protocol":[1],"nonce":"me"}"#;

/// An implementation in a role.
pub(in crate::cli) struct Target {
    pub(in crate::cli) role: Role,
    pub(in crate::cli) source: Source,
    /// The options that attach it again.
    options: String,
}

pub(super) fn role(text: &str) -> Result<Role, Failure> {
    text.parse().map_err(|error| usage(error, "give one of them with `--role`"))
}

impl Target {
    pub(super) fn new(args: &AttachArgs) -> Result<Self, Failure> {
        let role = role(args.role.as_deref().unwrap_or_default())?;
        let mut options = format!("--role {role}");
        let answer_max = parse_duration(&args.answer_timeout).filter(|time| *time > 0);
        let answer_max = answer_max.map(Duration::from_millis).ok_or_else(|| {
            let message = format!("`{}` is no time for an answer", args.answer_timeout);
            usage(message, "write `--answer-timeout 10s`, with `ms`, `s` or `m`")
        })?;
        let source = match (&args.adapter, &args.mutant) {
            (Some(command), _) => {
                options += &format!(" --adapter {}", quoted(command));
                let words = shlex::split(command).ok_or_else(|| {
                    usage(format!("`{command}` is no command"), "close its quotation marks")
                })?;
                if args.answer_timeout != DEFAULT_ANSWER_TIMEOUT {
                    options += &format!(" --answer-timeout {}", args.answer_timeout);
                }
                Source::Adapter(Launch { words, answer_max })
            }
            (None, Some(id)) => {
                options += &format!(" --mutant {}", mutants::named(id)?.id);
                Source::Reference(Some(id.clone()))
            }
            (None, None) => Source::Reference(None),
        };
        Ok(Self { role, source, options })
    }

    /// The command that attaches the implementation again: `conform`, or another that does.
    pub(super) fn again(&self, command: &str) -> String {
        format!("gapless-sim {command} {}", self.options)
    }

    /// An implementation that could not be attached.
    pub(in crate::cli) fn refused(&self, error: &NodeError) -> Failure {
        match error {
            NodeError::Unsupported(_) => Failure::NothingRan(format!(
                "error: {error}\n  hint: give a `--role` that it announces; one whose clock is real \
                 can only be tested live\n"
            )),
            error => {
                let command = match &self.source {
                    Source::Adapter(launch) => launch.words.join(" "),
                    Source::Reference(_) => self.again("adapter"),
                };
                Failure::Adapter(format!(
                    "error: {error}\n  hint: ask it by hand: `echo '{HELLO}' | {command}`\n"
                ))
            }
        }
    }
}

/// A text as one word for a shell.
pub(super) fn quoted(text: &str) -> String {
    // What cannot be quoted holds a zero byte, which no command line can.
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}
