//! An application that does what the texts of its users say.

use std::time::Duration;

use gapless::net::BoxFuture;
use gapless::session::conversation::{Ending, Saying};
use gapless::session::driver::{Application, Speaker, Stopped};
use gapless::session::server::Work;
use gapless::session::wire::Notice;

use super::Ledger;
use super::script::{self, Text};
use crate::plan::TurnScript;
use crate::trace::Kind;
use crate::world::host::Process;

/// The application of one life of the server.
pub(super) struct Scripted {
    pub(super) process: Process,
    pub(super) ledger: Ledger,
}

impl Application for Scripted {
    fn turn(&self, work: Work, speaker: Speaker) -> BoxFuture<'static, Ending> {
        let (process, ledger) = (self.process.clone(), self.ledger.clone());
        Box::pin(async move {
            let user = super::watch::user_of(&work.turn.principal);
            let turn = (user, work.turn.position);
            take(&process, &ledger, turn, &work.input.text, speaker).await
        })
    }
}

/// Speaks for a turn.
pub(super) trait Voice: Send {
    /// Says something, and returns when it is heard.
    fn say(&mut self, saying: Saying) -> impl Future<Output = Result<(), Stopped>> + Send;

    /// Tells how it is getting on.
    fn progress(&mut self, notice: Notice) -> impl Future<Output = Result<(), Stopped>> + Send;
}

impl Voice for Speaker {
    async fn say(&mut self, saying: Saying) -> Result<(), Stopped> {
        Self::say(self, saying).await
    }

    async fn progress(&mut self, notice: Notice) -> Result<(), Stopped> {
        Self::progress(self, notice).await
    }
}

/// Takes the turn for what a user said: its user, and the position of its row.
pub(super) async fn take(
    process: &Process,
    ledger: &Ledger,
    turn: (u32, u64),
    text: &str,
    mut voice: impl Voice,
) -> Ending {
    let running = Running::enter(ledger, turn);
    let (_, position) = turn;
    let speaking = async {
        let Some(about) = Text::parse(text) else {
            return Ending::Failed(format!("nobody knows what to do about {position}"));
        };
        process.record(Kind::App, format_args!("the turn for {} begins", about.key));
        let does = about.does.unwrap_or_default();
        if perform(&about, &does, &mut voice).await.is_err() {
            // Nobody hears it any more.
            return Ending::Done;
        }
        process.record(Kind::App, format_args!("the turn for {} ends", about.key));
        script::ending(position, &about, &does)
    };
    let pause = process.pause.clone();
    let ending = pause.apply(speaking).await;
    drop(running);
    ending
}

async fn perform(about: &Text, does: &TurnScript, voice: &mut impl Voice) -> Result<(), Stopped> {
    let each = || tokio::time::sleep(Duration::from_millis(does.each_ms));
    for nth in 1..=does.progress {
        voice.progress(script::progress(nth)).await?;
        each().await;
    }
    for nth in 1..=does.say {
        each().await;
        voice.say(script::saying(about, nth, does)).await?;
    }
    Ok(())
}

/// The ledger knows of a turn as long as this lives.
struct Running {
    ledger: Ledger,
    turn: (u32, u64),
}

impl Running {
    fn enter(ledger: &Ledger, turn: (u32, u64)) -> Self {
        ledger.state().running.insert(turn);
        Self { ledger: ledger.clone(), turn }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ledger.state().running.remove(&self.turn);
    }
}
