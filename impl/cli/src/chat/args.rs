//! The command line of `gapless chat`.

use std::path::PathBuf;

use clap::Args;

use crate::args::ServerArgs;

const CHAT_HELP: &str = "\
Each line of standard input is said, or is the answer if a question is open. Standard output has what
was said, by whom, each thing once: first the history, then the rest as it comes. How the connection is
is told on standard error. What was said and not confirmed is kept in DIR/chat.db and said once, also
after this process or the server was killed.

From a terminal, it ends at the end of input (Ctrl-D). From a pipe or a file, the next line is said when
everything before is answered, and it ends when the last one is.

Examples:
  gapless chat --data chat --token-file data/user.token
  echo 'how are you' | gapless chat --data chat --token-file data/user.token";

#[derive(Debug, Args)]
#[command(after_help = CHAT_HELP)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The folder for what is not confirmed yet; made if there is none.
    #[arg(long, value_name = "DIR", env = "GAPLESS_DATA")]
    pub(crate) data: PathBuf,
}
