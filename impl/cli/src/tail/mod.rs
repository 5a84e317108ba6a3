//! `gapless tail`: the events of a stream, written down.

mod sink;
mod watched;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gapless::events::client::{Client, ClientConfig, Notice, Offer, Position, StartAt};
use gapless::events::driver::{
    Application, CursorStore, Handled, Handler, HandlerError, Target, client,
};
use gapless::net::{BoxFuture, SystemClock};
use tokio::sync::mpsc;

use self::sink::Sink;
use self::watched::{Refusal, Watched};
use crate::args::{Start, TailArgs};
use crate::failure::Failure;
use crate::secret::Secret;
use crate::signals::Stop;
use crate::tls::ServerConnector;
use crate::{entropy, exit};

/// How long what was written may stay without its cursor.
const COMMIT_EVERY: Duration = Duration::from_millis(100);

/// How long saying goodbye to the server may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Writes events until it is stopped, or until there are as many as wanted.
pub(crate) async fn run(args: TailArgs, token: Secret) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let agent = args.agent.as_ref().map(|agent| agent.as_str().to_owned());
    let sink = Sink::open(&args.cursor, &args.output, agent.as_deref())?;
    let position = sink.position().cloned();
    let (ends, mut ended) = mpsc::unbounded_channel();
    let tail = Arc::new(Tail {
        state: Mutex::new(State { sink, events: 0, gaps: 0, ended: false }),
        wanted: args.count,
        ends,
    });

    let config = ClientConfig {
        start: match args.start {
            Start::Beginning => StartAt::Beginning,
            Start::Live => StartAt::Live,
        },
        ..ClientConfig::default()
    };
    let token = match &agent {
        Some(agent) => format!("{}@{agent}", token.reveal()),
        None => token.reveal().to_owned(),
    };
    let authority = args.server.url.authority();
    let (core, mut refusals) = Watched::new(Client::new(config, entropy()?));
    let application = Application {
        handlers: vec![Box::new(Writer(tail.clone()))],
        open_handlers: vec![],
        cursor: Box::new(Cursor { tail: tail.clone(), position }),
        notices: Box::new({
            let tail = tail.clone();
            move |notice| tail.notice(&notice)
        }),
    };
    let connector = ServerConnector::new(&args.server.url, args.server.tls_ca.as_deref())?;
    let target = Target::new(authority, token);
    let (handle, running) = client(core, connector, target, Arc::new(SystemClock), application);
    let running = tokio::spawn(running);

    let result = loop {
        tokio::select! { biased;
            signal = stop.asked() => {
                tracing::info!(signal, "stopping");
                break Ok(());
            }
            Some(end) = ended.recv() => break end,
            Some(Refusal { status, first }) = refusals.recv() => match first {
                true => break Err(refused(status)),
                false => tracing::warn!(status, "the server refuses; it is tried again"),
            },
            () = tokio::time::sleep(COMMIT_EVERY) => tail.commit(),
        }
    };
    handle.stop().await;
    // The goodbye is a courtesy.
    let _ = tokio::time::timeout(GOODBYE, running).await;
    let mut state = tail.state();
    state.ended = true;
    let committed = state.sink.commit();
    result?;
    committed?;
    eprintln!("wrote {} events", state.events);
    match state.gaps {
        0 => Ok(exit::OK),
        gaps => {
            eprintln!("the server declared {gaps} gaps: events are lost");
            Ok(exit::GAP)
        }
    }
}

fn refused(status: u16) -> Failure {
    let problem = format!("the server refused with status {status}");
    match status {
        401 => Failure::refused(problem)
            .hint("check the token, and that the server's token file has its hash"),
        403 => Failure::refused(problem).hint(
            "the token needs the role `subscribe:AGENT`, and `--agent` if it may read several streams",
        ),
        _ => Failure::new(problem).hint("is this a server for event streams? see `--url`"),
    }
}

/// What the client's parts share.
struct Tail {
    state: Mutex<State>,
    wanted: Option<u64>,
    /// Why it ends.
    ends: mpsc::UnboundedSender<Result<(), Failure>>,
}

struct State {
    sink: Sink,
    events: u64,
    gaps: u64,
    /// Nothing more is written.
    ended: bool,
}

impl Tail {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an event; whether it goes on after it.
    fn write(&self, offer: &Offer) -> bool {
        let mut state = self.state();
        if state.ended {
            return false;
        }
        let written = state.sink.append(offer.event.text(), offer.position.clone());
        state.events += u64::from(written.is_ok());
        let enough = self.wanted.is_some_and(|wanted| state.events >= wanted);
        state.ended = enough || written.is_err();
        if state.ended {
            // Nobody hears it if another end came first.
            let _ = self.ends.send(written);
        }
        !state.ended
    }

    fn save(&self, position: Position) -> Result<(), String> {
        let mut state = self.state();
        if state.ended {
            return Ok(());
        }
        state.sink.move_to(position);
        self.committed(&mut state)
    }

    fn commit(&self) {
        let mut state = self.state();
        if !state.ended {
            // What failed is told by the end.
            let _ = self.committed(&mut state);
        }
    }

    fn committed(&self, state: &mut State) -> Result<(), String> {
        state.sink.commit().map_err(|failure| {
            let problem = failure.to_string();
            state.ended = true;
            let _ = self.ends.send(Err(failure));
            problem
        })
    }

    fn notice(&self, notice: &Notice) {
        match notice {
            Notice::Opened { .. } => tracing::info!("connected"),
            Notice::Joined { position } => tracing::info!(sequence = position.sequence, "joined"),
            Notice::Disconnected { reason, retry_in } => {
                tracing::warn!(reason, ?retry_in, "disconnected");
            }
            Notice::Gap { verdict, lost, position } => {
                tracing::error!(
                    verdict = verdict.as_str(),
                    lost = %sink::ranges(lost),
                    goes_on_after = position.sequence,
                    "events are lost"
                );
                let mut state = self.state();
                if state.ended {
                    return;
                }
                state.gaps += 1;
                if let Err(failure) = state.sink.append_gap(*verdict, lost, position) {
                    state.ended = true;
                    let _ = self.ends.send(Err(failure));
                }
            }
            Notice::Resynced { replayed, gap_detected } => {
                tracing::info!(replayed, gap_detected, "in step with the server");
            }
            // Whatever fails in here ends it.
            Notice::GaveUp { .. } => tracing::error!("an event was passed over"),
            Notice::Ignored { error } => tracing::warn!(%error, "a frame was ignored"),
            Notice::CursorNotStored { error } => tracing::error!(error, "the cursor is not stored"),
        }
    }
}

/// Takes the events.
struct Writer(Arc<Tail>);

impl Handler for Writer {
    fn handle<'a>(&'a mut self, offer: &'a Offer) -> BoxFuture<'a, Result<Handled, HandlerError>> {
        Box::pin(async move {
            match self.0.write(offer) {
                // The position is committed with the bytes of the event, or not at all.
                true => Ok(Handled::Stored),
                // An event that is not written must not count as handled.
                false => std::future::pending().await,
            }
        })
    }
}

/// Keeps the positions that belong to no event.
struct Cursor {
    tail: Arc<Tail>,
    position: Option<Position>,
}

impl CursorStore for Cursor {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Position>, String>> {
        let position = self.position.take();
        Box::pin(async move { Ok(position) })
    }

    fn save(&mut self, position: Position) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.tail.save(position) })
    }
}
