//! `gapless token`, and the token of a client.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::args::{ServerArgs, TokenCommand};
use crate::exit;
use crate::failure::Failure;
use crate::secret::Secret;
use crate::serve::tokens::{Entry, TokenFile};

/// The variable with the token itself.
const TOKEN_VARIABLE: &str = "GAPLESS_TOKEN";

/// How much of standard input is read for a token, in bytes.
const STDIN_BYTES_MAX: u64 = 4096;

impl ServerArgs {
    /// The token: of the file if it was named on the command line, else of the environment, else of
    /// the file.
    pub(crate) fn token(&self, file_is_a_flag: bool) -> Result<Secret, Failure> {
        let variable = std::env::var(TOKEN_VARIABLE).ok().filter(|_| !file_is_a_flag);
        match (variable, &self.token_file) {
            (Some(token), _) => Secret::parse(&token),
            (None, Some(path)) => Secret::read(path),
            (None, None) => Err(Failure::usage("there is no token")
                .hint(format!("give `--token-file FILE`, or set {TOKEN_VARIABLE}"))),
        }
    }
}

pub(crate) fn run(command: TokenCommand) -> Result<u8, Failure> {
    match command {
        TokenCommand::New { principal, roles, add } => new(principal, roles, add.as_deref()),
        TokenCommand::Hash => hash(),
    }
}

fn new(principal: String, roles: Vec<String>, add: Option<&Path>) -> Result<u8, Failure> {
    let token = Secret::random()?;
    let entry = Entry::new(&token.hash(), principal, roles)?.to_toml();
    match add {
        Some(path) => append(path, &entry)?,
        None => eprint!("{entry}"),
    }
    println!("{}", token.reveal());
    Ok(exit::OK)
}

/// Adds an entry, if the file is a good one before and after.
pub(crate) fn append(path: &Path, entry: &str) -> Result<(), Failure> {
    TokenFile::read(path)?;
    let failed = |error: std::io::Error| {
        Failure::new(format!("`{}` cannot be written: {error}", path.display()))
    };
    let mut file = OpenOptions::new().append(true).open(path).map_err(failed)?;
    file.write_all(format!("\n{entry}").as_bytes()).map_err(failed)
}

fn hash() -> Result<u8, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(STDIN_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("standard input cannot be read: {error}")))?;
    let token = Secret::parse(text.lines().next().unwrap_or_default())?;
    token.check_length()?;
    println!("{}", token.hash());
    Ok(exit::OK)
}
