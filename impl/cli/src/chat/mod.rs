//! `gapless chat`: a conversation in a terminal, or in a pipe.

pub(crate) mod args;
mod screen;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use gapless::Core;
use gapless::recovery::Instant;
use gapless::session::DialFailure;
use gapless::session::client::{Client, ClientConfig, Input, Output, Submission, SubmitError};
use gapless::session::conversation::Role;
use gapless::session::driver::{ClientHandle, Target, client};
use gapless::session::sqlite::SqliteInFlight;
use gapless::session::view::{Connection, View};
use gapless::session::wire::Status;
use gapless::storage::Threaded;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::sync::mpsc;

use self::args::ChatArgs;
use self::screen::Screen;
use crate::failure::Failure;
use crate::secret::Secret;
use crate::serve::data::DataFolder;
use crate::signals::Stop;
use crate::tls::ServerConnector;
use crate::{entropy, exit};

/// The database in the folder of a chat.
const DATABASE: &str = "chat.db";

/// How long nothing may have changed after a reply before it counts as the whole answer.
const SETTLED: Duration = Duration::from_millis(300);

/// The same if there is no reply at all.
const UNANSWERED: Duration = Duration::from_secs(5);

/// How long saying goodbye to the server may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Talks until the input ends.
pub(crate) async fn run(args: ChatArgs, token: Secret) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let folder = DataFolder::take(&args.data, "chat")?;
    let opened = SqliteInFlight::open(&folder.file(DATABASE), None, &mut *entropy()?);
    let (store, kept) = opened.map_err(|error| Failure::new(error.to_string()))?;
    let store = Threaded::spawn(store)
        .map_err(|error| Failure::new(format!("the database gets no thread: {error}")))?;
    let connector = ServerConnector::new(&args.server.url, args.server.tls_ca.as_deref())?;
    let target = Target::new(args.server.url.authority(), token.reveal());
    let (refusals, mut refused) = mpsc::channel(1);
    let core = Client::new(ClientConfig::default(), entropy()?);
    let core = Watched { core, opened: false, refusals };
    let (handle, running) = client(core, connector, target, store, kept);
    let running = tokio::spawn(running);

    let mut chat = Chat {
        handle: handle.clone(),
        screen: Screen::default(),
        input: Some(BufReader::new(tokio::io::stdin()).lines()),
        in_turn: !std::io::stdin().is_terminal(),
    };
    let ended = tokio::select! { biased;
        _ = stop.asked() => Ok(()),
        Some(status) = refused.recv() => Err(refusal(status)),
        ended = chat.talk() => ended,
    };
    let pending = handle.view().borrow().pending.len();
    handle.stop().await;
    // The goodbye is a courtesy; what was said is in the database.
    let _ = tokio::time::timeout(GOODBYE, running).await;
    if pending > 0 {
        eprintln!("{pending} things are not confirmed yet; the next start says them");
    }
    ended.map(|()| exit::OK)
}

fn refusal(status: u16) -> Failure {
    let problem = format!("the server refused with status {status}");
    match status {
        401 | 403 => Failure::refused(problem).hint("the token needs the role `user`"),
        _ => Failure::new(problem).hint("is this a server for sessions? see `--url`"),
    }
}

struct Chat {
    handle: ClientHandle,
    screen: Screen,
    /// `None` after its end.
    input: Option<Lines<BufReader<Stdin>>>,
    /// A line is read only when everything before it is answered.
    in_turn: bool,
}

impl Chat {
    async fn talk(&mut self) -> Result<(), Failure> {
        let mut views = self.handle.view();
        loop {
            let view = views.borrow_and_update().clone();
            self.show(&view)?;
            if view.connection == Connection::Superseded {
                return Err(Failure::new("another client has taken this one's place")
                    .hint("only one process may use a copy of the folder of `--data`"));
            }
            let settles = settles_after(&view);
            if self.input.is_none() && !self.in_turn && view.pending.is_empty() {
                return Ok(());
            }
            tokio::select! { biased;
                changed = views.changed() => {
                    if changed.is_err() {
                        return Err(Failure::new("the client has ended by itself"));
                    }
                }
                line = next(&mut self.input), if !self.in_turn => self.read(line).await?,
                () = sleep(settles), if self.in_turn && settles.is_some() => {
                    if self.input.is_none() {
                        return Ok(());
                    }
                    let line = next(&mut self.input).await;
                    self.read(line).await?;
                }
            }
        }
    }

    fn show(&mut self, view: &View) -> Result<(), Failure> {
        let news = self.screen.show(view);
        for line in news.told {
            eprintln!("{line}");
        }
        let mut stdout = std::io::stdout().lock();
        let written = news.said.iter().try_for_each(|line| writeln!(stdout, "{line}"));
        written
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::new(format!("the output cannot be written: {error}")))
    }

    /// Says a line of the input, or takes note of its end.
    async fn read(&mut self, line: std::io::Result<Option<String>>) -> Result<(), Failure> {
        let line =
            line.map_err(|error| Failure::new(format!("standard input cannot be read: {error}")))?;
        let Some(line) = line else {
            self.input = None;
            return Ok(());
        };
        if line.trim().is_empty() {
            return Ok(());
        }
        let asked = self.handle.view().borrow().open_question.is_some();
        let what = match asked {
            true => Submission::Answer { text: line },
            false => Submission::Message { text: line, attachments: vec![] },
        };
        match self.handle.submit(what).await {
            Ok(id) => {
                tracing::debug!(id = id.as_str(), "taken");
                Ok(())
            }
            // A person sees it and says it again.
            Err(
                error @ (SubmitError::TooManyInFlight
                | SubmitError::TooLarge { .. }
                | SubmitError::NoQuestion),
            ) if !self.in_turn => {
                eprintln!("not said: {error}");
                Ok(())
            }
            Err(error) => Err(Failure::new(format!("a line was not said: {error}"))),
        }
    }
}

/// How long a view has to stay as it is for everything to count as answered; `None` = for ever.
fn settles_after(view: &View) -> Option<Duration> {
    let at_rest = match view.status {
        Status::Idle | Status::Waiting => true,
        Status::Thinking => false,
    };
    if view.connection != Connection::Live || !view.pending.is_empty() || !at_rest {
        return None;
    }
    match view.messages.last().map(|row| row.role) {
        Some(Role::User) => Some(UNANSWERED),
        Some(Role::Assistant) | None => Some(SETTLED),
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn next(input: &mut Option<Lines<BufReader<Stdin>>>) -> std::io::Result<Option<String>> {
    match input {
        Some(lines) => lines.next_line().await,
        None => std::future::pending().await,
    }
}

/// The client's core; reports the status with which a server refuses that has never let it in.
struct Watched<C> {
    core: C,
    opened: bool,
    refusals: mpsc::Sender<u16>,
}

impl<C: Core<Input = Input, Output = Output>> Core for Watched<C> {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match &input {
            Input::Opened { .. } => self.opened = true,
            Input::DialFailed {
                failure: DialFailure::Status(status @ (401 | 403 | 404 | 405 | 426)),
                ..
            } if !self.opened => {
                // The first one is enough.
                let _ = self.refusals.try_send(*status);
            }
            _ => {}
        }
        self.core.handle(now, input);
    }

    fn poll(&mut self) -> Option<Output> {
        self.core.poll()
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }
}
