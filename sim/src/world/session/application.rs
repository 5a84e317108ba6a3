//! An application that does what the texts of its users say.

use std::time::Duration;

use gapless::net::BoxFuture;
use gapless::session::conversation::Ending;
use gapless::session::driver::{Application, Speaker, Stopped};
use gapless::session::server::Work;

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
            let turn = speaker.turn().clone();
            let running =
                Running::enter(&ledger, super::watch::user_of(&turn.principal), turn.position);
            let pause = process.pause.clone();
            let ending = pause.apply(take(&process, &work, speaker)).await;
            drop(running);
            ending
        })
    }
}

/// Takes the turn for an input.
async fn take(process: &Process, work: &Work, mut speaker: Speaker) -> Ending {
    let Some(about) = Text::parse(&work.input.text) else {
        return Ending::Failed(format!("nobody knows what to do about {}", work.input.position));
    };
    process.record(Kind::App, format!("the turn for {} begins", about.key));
    let does = about.does.unwrap_or_default();
    if perform(&about, &does, &mut speaker).await.is_err() {
        // Nobody hears it any more.
        return Ending::Done;
    }
    process.record(Kind::App, format!("the turn for {} ends", about.key));
    script::ending(work.input.position, &about, &does)
}

async fn perform(about: &Text, does: &TurnScript, speaker: &mut Speaker) -> Result<(), Stopped> {
    let each = || tokio::time::sleep(Duration::from_millis(does.each_ms));
    for nth in 1..=does.progress {
        speaker.progress(script::progress(nth)).await?;
        each().await;
    }
    for nth in 1..=does.say {
        each().await;
        speaker.say(script::saying(about, nth, does)).await?;
    }
    Ok(())
}

/// The ledger knows of a turn as long as this lives.
struct Running {
    ledger: Ledger,
    turn: (u32, u64),
}

impl Running {
    fn enter(ledger: &Ledger, user: u32, position: u64) -> Self {
        let turn = (user, position);
        ledger.state().running.insert(turn);
        Self { ledger: ledger.clone(), turn }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ledger.state().running.remove(&self.turn);
    }
}
