//! Users of sessions: each says something now and then, answers what it is asked, and looks at what its
//! client shows.
//!
//! What a user says is numbered. Its rows have to come once each and in order, and after each row the
//! demo application has to say what it always says, unless a row tells that it was interrupted.

use std::sync::Arc;
use std::time::Duration;

use gapless::session::client::{Client, ClientConfig, Submission, SubmitError};
use gapless::session::conversation::{Kind, Role};
use gapless::session::driver::{ClientHandle, Target, client};
use gapless::session::sqlite::SqliteInFlight;
use gapless::session::view::{Connection, View};
use gapless::session::wire::{HistoryMessage, Status};
use gapless::storage::Threaded;
use rand::RngExt as _;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::{Shop, entropy};
use crate::failure::{Failure, Result};
use crate::mix::{TALKS, user_token};
use crate::slots::Slots;
use crate::tally::Counts;

/// How long a user thinks before it says something, in milliseconds.
const THINKS_MS: std::ops::Range<u64> = 1_000..12_000;

/// How much the application may have still to say when a user says something more: some two turns.
const OWED_MAX: u64 = 8;

/// What a user has said, and what of it has been seen.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Talk {
    /// The newest thing that the user may have said.
    said: u64,
    /// The newest that is known to be kept by the client, so that it has to become a row.
    kept: u64,
    /// Of these nobody knows, because the process ended when they were said: first and last.
    unsure: Option<(u64, u64)>,
    /// The last row that was looked at.
    row: u64,
    /// The newest thing of which the row was seen.
    pub(crate) seen: u64,
    /// What the application has still to do, in this order.
    turns: Vec<Turn>,
    pub(crate) counts: Counts,
    /// How many turns were cut short by the end of the server.
    pub(crate) interrupted: u64,
    /// Whether everything that there is was seen.
    pub(crate) settled: bool,
}

/// A turn of the application, and how much of it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Turn {
    n: u64,
    what: Said,
    seen: usize,
    /// It may have been interrupted: nobody knows whether that was said of it or of the one before.
    perhaps_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    Message,
    Request,
    Answer,
}

impl Said {
    fn text(self, n: u64) -> String {
        match self {
            Self::Message => format!("message {n}"),
            Self::Request => format!("ask me about {n}"),
            Self::Answer => format!("answer {n}"),
        }
    }

    fn read(text: &str) -> Option<(Self, u64)> {
        let (what, n) = text.rsplit_once(' ')?;
        let what = match what {
            "message" => Self::Message,
            "ask me about" => Self::Request,
            "answer" => Self::Answer,
            _ => return None,
        };
        Some((what, n.parse().ok()?))
    }

    /// How many rows the application makes of it.
    fn rows(self) -> usize {
        match self {
            Self::Message => 4,
            Self::Request => 1,
            Self::Answer => 2,
        }
    }
}

impl Turn {
    /// Whether everything was said. That it is over is not known then: only a question is the end.
    fn is_said(&self) -> bool {
        self.seen == self.what.rows()
    }

    /// Whether a row is the next that the application has to say.
    fn expects(&self, row: &HistoryMessage) -> bool {
        let said = self.what.text(self.n);
        match (self.what, self.seen) {
            (Said::Request, _) => {
                row.kind == Some(Kind::Question) && row.text.contains(&self.n.to_string())
            }
            (Said::Message, 1) => {
                row.text == format!("Backwards: {}", said.chars().rev().collect::<String>())
            }
            (Said::Answer, 0) => row.text.contains(&said),
            (Said::Message | Said::Answer, _) => row.kind == Some(Kind::Message),
        }
    }
}

impl Talk {
    /// A process begins: what it was about to say when the last one ended may have been kept or not.
    fn begin(&mut self, in_flight: impl Iterator<Item = u64>) {
        self.kept = in_flight.chain([self.kept, self.seen]).max().unwrap_or(0);
        if self.said > self.kept {
            let from = self.unsure.map_or(self.kept + 1, |(from, _)| from);
            self.unsure = Some((from, self.said));
        }
    }

    fn is_unsure(&self, n: u64) -> bool {
        self.unsure.is_some_and(|(from, to)| (from..=to).contains(&n))
    }

    /// Looks at what is shown.
    fn look(&mut self, view: &View) {
        for pending in view.pending.iter().filter(|pending| pending.kept) {
            if let Some((_, n)) = Said::read(&pending.input.text) {
                self.kept = self.kept.max(n);
            }
        }
        for row in &view.messages {
            match row.position {
                // The next ones wait for those that are missing.
                Some(position) if position > self.row + 1 && !view.truncated => break,
                Some(position) if position > self.row => {
                    self.counts.lost += position - self.row - 1;
                    self.row = position;
                    self.take(row);
                }
                Some(_) => {}
                None => self.counts.damaged += 1,
            }
        }
        self.counts.refused = self.counts.refused.max(view.rejected.len() as u64);
        let last = view.messages.last().and_then(|row| row.position).unwrap_or(0);
        let all_rows = self.seen == self.said || self.is_unsure(self.said);
        self.settled = view.connection == Connection::Live
            && view.loaded
            && view.pending.is_empty()
            // It will be answered.
            && view.open_question.is_none()
            && self.owed() == 0
            && last == self.row
            && all_rows;
    }

    fn take(&mut self, row: &HistoryMessage) {
        match (row.role, row.kind) {
            (Role::User, _) => self.take_said(row),
            (Role::Assistant, Some(Kind::Interrupted)) => self.take_interruption(),
            (Role::Assistant, _) => self.take_reply(row),
        }
    }

    /// A turn that had said everything may be interrupted as well, before its end was stored. Then it
    /// cannot be told from one that had begun after it, nor that one from the next at another
    /// interruption.
    fn take_interruption(&mut self) {
        self.interrupted += 1;
        match &mut self.turns[..] {
            [] => self.counts.damaged += 1,
            [first, next, ..] if first.is_said() || first.perhaps_over => {
                next.perhaps_over = true;
                self.turns.remove(0);
            }
            [..] => drop(self.turns.remove(0)),
        }
    }

    fn take_reply(&mut self, row: &HistoryMessage) {
        while self.turns.first().is_some_and(Turn::is_said) {
            self.turns.remove(0);
        }
        while let [first, next, ..] = &mut self.turns[..]
            && first.perhaps_over
            && !first.expects(row)
        {
            // The first reply to a message is the same for all.
            next.seen = first.seen;
            self.turns.remove(0);
        }
        match self.turns.first_mut() {
            Some(turn) if turn.expects(row) => {
                // All replies but the first to a message tell what they are to.
                turn.perhaps_over &= turn.what == Said::Message && turn.seen == 0;
                turn.seen += 1;
                if turn.what == Said::Request {
                    self.turns.remove(0);
                }
            }
            _ => self.counts.damaged += 1,
        }
    }

    fn take_said(&mut self, row: &HistoryMessage) {
        let Some((what, n)) = Said::read(&row.text).filter(|(_, n)| *n <= self.said) else {
            self.counts.damaged += 1;
            return;
        };
        if n <= self.seen {
            self.counts.doubled += 1;
            return;
        }
        self.counts.lost += (self.seen + 1..n).filter(|n| !self.is_unsure(*n)).count() as u64;
        self.seen = n;
        let turn = Turn { n, what, seen: 0, perhaps_over: false };
        match what {
            // An answer goes before messages that wait.
            Said::Answer => {
                self.turns.retain(|turn| !turn.is_said());
                self.turns.insert(0, turn);
            }
            Said::Message | Said::Request => self.turns.push(turn),
        }
        if self.unsure.is_some_and(|(_, to)| to < n) {
            self.unsure = None;
        }
    }

    /// What is lost besides, now that nothing more will come.
    pub(crate) fn counts(&self) -> Counts {
        let owed = (self.seen + 1..=self.kept).filter(|n| !self.is_unsure(*n)).count() as u64;
        Counts { lost: self.counts.lost + owed + self.owed(), ..self.counts }
    }

    fn may_speak(&self, view: &View) -> bool {
        // Messages wait for the answer to a question, so that is never too much.
        let is_turn = match view.open_question {
            Some(_) => true,
            None => view.status != Status::Waiting && self.owed() <= OWED_MAX,
        };
        view.loaded && view.pending.is_empty() && is_turn
    }

    /// How much the application has still to say.
    fn owed(&self) -> u64 {
        let turns = self.turns.iter().filter(|turn| !turn.perhaps_over);
        turns.map(|turn| (turn.what.rows() - turn.seen) as u64).sum()
    }
}

/// Lets a user come, or come back.
pub(crate) fn begin(shop: &Arc<Shop>, user: usize) -> Result<()> {
    let mix = &shop.mix;
    let path = mix.file(&format!("session-{user}.db"));
    let (store, kept) = SqliteInFlight::open(&path, None, &mut *entropy()?)?;
    let slots = Slots::open(&mix.file(TALKS))?;
    let mut talk: Talk = slots.read(user)?;
    talk.begin(kept.in_flight.iter().filter_map(|input| Some(Said::read(&input.text)?.1)));
    slots.write(user, &talk)?;
    let config = ClientConfig { reconnect: mix.reconnect(), ..ClientConfig::default() };
    let (handle, running) = client(
        Client::new(config, entropy()?),
        shop.connector(mix.way(mix.subscribers() + user)),
        Target::new(mix.host(), user_token(user)),
        Threaded::spawn(store)?,
        kept,
    );
    tokio::spawn(running);
    let shop = shop.clone();
    tokio::spawn(async move {
        let rng = match entropy() {
            Ok(rng) => rng,
            Err(failure) => return shop.fail(&failure),
        };
        let user = User { shop: shop.clone(), handle, slots, user, talk, rng };
        if let Err(failure) = user.talk().await {
            shop.fail(&failure.context("a user"));
        }
    });
    Ok(())
}

struct User {
    shop: Arc<Shop>,
    handle: ClientHandle,
    slots: Slots,
    user: usize,
    talk: Talk,
    rng: Box<ChaCha12Rng>,
}

impl User {
    async fn talk(mut self) -> Result<()> {
        let mut views = self.handle.view();
        loop {
            let thought = tokio::time::sleep(self.thinks());
            let mut thought = std::pin::pin!(thought);
            loop {
                let view = views.borrow_and_update().clone();
                let before = self.talk.clone();
                self.talk.look(&view);
                if self.talk != before {
                    self.slots.write(self.user, &self.talk)?;
                }
                tokio::select! { biased;
                    changed = views.changed() => {
                        changed.map_err(|_| Failure::new("its client has ended"))?;
                    }
                    () = &mut thought => break,
                }
            }
            let finished = *self.shop.finish.borrow();
            let view = views.borrow().clone();
            // What is asked is answered in any case: messages wait until it is.
            if self.talk.may_speak(&view) && (!finished || view.open_question.is_some()) {
                self.speak(&view).await?;
            }
        }
    }

    fn thinks(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(THINKS_MS))
    }

    async fn speak(&mut self, view: &View) -> Result<()> {
        let n = self.talk.said + 1;
        let what = match &view.open_question {
            Some(_) => Said::Answer,
            None if self.rng.random_ratio(1, 3) => Said::Request,
            None => Said::Message,
        };
        let text = what.text(n);
        let before = self.talk.said;
        self.talk.said = n;
        self.slots.write(self.user, &self.talk)?;
        let submission = match what {
            Said::Answer => Submission::Answer { text },
            Said::Message | Said::Request => Submission::Message { text, attachments: vec![] },
        };
        match self.handle.submit(submission).await {
            Ok(_) => Ok(()),
            // The question was closed meanwhile.
            Err(SubmitError::NoQuestion | SubmitError::TooManyInFlight) => {
                self.talk.said = before;
                self.slots.write(self.user, &self.talk)
            }
            Err(error @ (SubmitError::TooLarge { .. } | SubmitError::Stopped)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use gapless::session::wire::Question;

    use super::*;

    fn row(position: u64, role: Role, kind: Kind, text: &str) -> HistoryMessage {
        HistoryMessage {
            role,
            text: text.to_owned(),
            position: Some(position),
            kind: Some(kind),
            input: None,
            question: None,
            attachments: vec![],
        }
    }

    fn said(position: u64, what: Said, n: u64) -> HistoryMessage {
        row(position, Role::User, Kind::Message, &what.text(n))
    }

    fn reply(position: u64, text: &str) -> HistoryMessage {
        row(position, Role::Assistant, Kind::Message, text)
    }

    /// A message, its replies, and a request that was interrupted.
    fn good() -> Vec<HistoryMessage> {
        vec![
            said(1, Said::Message, 1),
            reply(2, "Those are 2 words."),
            reply(3, "Backwards: 1 egassem"),
            reply(4, "…"),
            reply(5, "…"),
            said(6, Said::Request, 2),
            row(7, Role::Assistant, Kind::Interrupted, "…"),
        ]
    }

    /// Gives the rows their places anew, so that only what they say is wrong.
    fn placed(mut rows: Vec<HistoryMessage>) -> Vec<HistoryMessage> {
        rows.iter_mut().zip(1..).for_each(|(row, place)| row.position = Some(place));
        rows
    }

    /// What a user has seen who has said two things.
    fn seen(rows: Vec<HistoryMessage>) -> Talk {
        seen_of(2, rows)
    }

    /// What a user has seen who has said so many things.
    fn seen_of(said: u64, rows: Vec<HistoryMessage>) -> Talk {
        let mut talk = Talk { said, kept: said, ..Talk::default() };
        let messages = rows.into_iter().map(Arc::new).collect();
        let connection = Connection::Live;
        talk.look(&View { connection, loaded: true, messages, ..View::default() });
        talk
    }

    #[test]
    fn a_talk_in_which_everything_comes_once_is_exact_and_settled() {
        let talk = seen(good());
        assert!(talk.counts().is_exact() && talk.settled, "{talk:?}");
        assert_eq!(talk.interrupted, 1);
    }

    #[test]
    fn a_row_that_is_missing_is_lost_whether_its_place_is_or_not() {
        for missing in 0..good().len() {
            let mut rows = good();
            rows.remove(missing);
            let hole = seen(rows.clone());
            assert!(!hole.settled || !hole.counts().is_exact(), "{missing}: {hole:?}");
            let talk = seen(placed(rows));
            assert!(!talk.counts().is_exact(), "{missing}: {talk:?}");
        }
    }

    #[test]
    fn a_row_that_comes_twice_or_in_the_wrong_order_is_found() {
        for twice in 0..good().len() {
            // Two of the replies are the same to the judge, and then it is one too many. So may two of the
            // interruptions be right: the first turn had said everything, and not yet ended.
            let mut rows = good();
            let copies = if rows[twice].kind == Some(Kind::Interrupted) { 2 } else { 1 };
            for _ in 0..copies {
                rows.insert(twice, rows[twice].clone());
            }
            let talk = seen(placed(rows));
            assert!(!talk.counts().is_exact(), "{twice}: {talk:?}");
        }
        for (one, other) in [(0, 1), (1, 2), (0, 5)] {
            let mut rows = good();
            rows.swap(one, other);
            let talk = seen(placed(rows));
            assert!(!talk.counts().is_exact(), "{one} and {other}: {talk:?}");
        }
    }

    #[test]
    fn a_turn_that_is_interrupted_after_it_has_said_everything_is_not_mistaken_for_the_next() {
        let mut rows = good();
        rows.truncate(6);
        rows[5] = said(6, Said::Message, 2);
        rows.push(row(7, Role::Assistant, Kind::Interrupted, "…"));
        // Of the first one, or of the second before it said anything.
        let either = seen(rows.clone());
        assert!(either.counts().is_exact() && either.settled, "{either:?}");
        rows.extend([reply(8, "Those are 2 words."), reply(9, "Backwards: 2 egassem")]);
        rows.extend([reply(10, "…"), reply(11, "…")]);
        let first = seen(rows.clone());
        assert!(first.counts().is_exact() && first.settled, "{first:?}");
        rows.push(reply(12, "…"));
        assert_eq!(seen(rows).counts().damaged, 1, "one too many");
    }

    #[test]
    fn turns_that_are_interrupted_one_after_the_other_are_not_mistaken_for_each_other() {
        let mut rows = good();
        rows.truncate(5);
        rows.extend((2..=4).map(|n| said(4 + n, Said::Message, n)));
        // Of the first and the second, or of the second and the third.
        rows.extend([9, 10].map(|place| row(place, Role::Assistant, Kind::Interrupted, "…")));
        for first in [3, 4] {
            let replies = |n| {
                let backwards = format!("Backwards: {n} egassem");
                ["Those are 2 words.", &backwards, "…", "…"].map(|text| reply(0, text))
            };
            let mut rows = rows.clone();
            rows.extend((first..=4).flat_map(replies));
            let talk = seen_of(4, placed(rows.clone()));
            assert!(talk.counts().is_exact() && talk.settled, "{first}: {talk:?}");
            for missing in rows.len() - 4..rows.len() {
                let mut rows = rows.clone();
                rows.remove(missing);
                let talk = seen_of(4, placed(rows));
                assert!(!talk.counts().is_exact(), "{first}, without {missing}: {talk:?}");
            }
        }
    }

    /// What is shown while the application waits for an answer.
    fn asked(rows: Vec<HistoryMessage>) -> View {
        let (text, source) = ("What do you say?".to_owned(), "demo".to_owned());
        let question = Question { id: None, text, source };
        let messages = rows.into_iter().map(Arc::new).collect();
        let (connection, status) = (Connection::Live, Status::Waiting);
        View {
            connection,
            status,
            loaded: true,
            messages,
            open_question: Some(question),
            ..View::default()
        }
    }

    #[test]
    fn a_user_who_is_asked_is_not_done() {
        let question = row(2, Role::Assistant, Kind::Question, "What do you say about 1?");
        let view = asked(vec![said(1, Said::Request, 1), question]);
        let mut talk = Talk { said: 1, kept: 1, ..Talk::default() };
        talk.look(&view);
        assert!(talk.counts().is_exact() && !talk.settled, "{talk:?}");
        talk.look(&View { open_question: None, status: Status::Idle, ..view });
        assert!(talk.settled, "{talk:?}");
    }

    #[test]
    fn a_user_who_is_asked_answers_whatever_the_application_has_still_to_say() {
        let view = asked(vec![]);
        let turn = |n| Turn { n, what: Said::Message, seen: 0, perhaps_over: false };
        let talk = Talk { turns: (1..=OWED_MAX).map(turn).collect(), ..Talk::default() };
        assert!(talk.owed() > OWED_MAX);
        assert!(talk.may_speak(&view));
        assert!(!talk.may_speak(&View { open_question: None, status: Status::Idle, ..view }));
    }

    #[test]
    fn what_was_being_said_when_the_process_ended_may_be_there_or_not() {
        let mut talk = Talk { said: 2, kept: 1, ..Talk::default() };
        talk.begin([].into_iter());
        assert_eq!(talk.unsure, Some((2, 2)));
        talk.take_said(&said(1, Said::Message, 1));
        assert_eq!(talk.counts().lost, 4, "the replies to the first are owed");
        let mut kept = Talk { said: 2, kept: 1, ..Talk::default() };
        kept.begin([2].into_iter());
        assert_eq!((kept.unsure, kept.kept), (None, 2));
        assert_eq!(kept.counts().lost, 2);
    }
}
