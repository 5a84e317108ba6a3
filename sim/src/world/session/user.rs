//! A user: says what the plan says, and answers what is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gapless::session::client::{Submission, SubmitError};
use gapless::session::conversation::What;
use gapless::session::driver::ClientHandle;
use gapless::session::view::{Connection, View};
use gapless::session::wire::Question;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Ledger, script};
use crate::trace::{Fact, Kind};
use crate::world::host::Process;
use crate::world::lock;

/// Something that a user wants.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// Say this.
    Say(Submission),
    /// Load the page again.
    Refresh,
    /// Be connected.
    Reconnect,
}

/// The user in front of one client, over the lives of the client. One who finds the client down
/// waits for it.
#[derive(Clone, Default)]
pub(super) struct User(Arc<Mutex<UserState>>, Arc<Notify>);

#[derive(Default)]
struct UserState {
    /// What is wanted, by the virtual time in milliseconds and a number.
    wishes: BTreeMap<(u64, u64), Wish>,
    /// How many wishes there have been.
    wished: u64,
    /// How many answers there have been.
    answered: u64,
    /// How many pages were loaded.
    loaded: u64,
}

/// How long a user waits who may not say more.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a user waits who has been pushed aside, for each client before this one: all of them
/// need some time to say what they have to say.
const COURTESY: Duration = Duration::from_secs(4);

fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

impl User {
    fn state(&self) -> MutexGuard<'_, UserState> {
        lock(&self.0)
    }

    /// Wants something at a virtual time.
    pub(super) fn wish(&self, at_ms: u64, wish: Wish) {
        {
            let mut state = self.state();
            state.wished += 1;
            let number = state.wished;
            state.wishes.insert((at_ms, number), wish);
        }
        self.1.notify_one();
    }

    /// Loads a page: which it is, from 1.
    pub(super) fn loads(&self) -> u64 {
        let mut state = self.state();
        state.loaded += 1;
        state.loaded
    }

    /// Whether nothing is left to be said.
    pub(super) fn has_said_all(&self) -> bool {
        self.state().wishes.is_empty()
    }

    /// The next wish, when its time has come.
    async fn next(&self) -> Wish {
        loop {
            let next = self.state().wishes.keys().next().copied();
            match next {
                None => self.1.notified().await,
                Some((at_ms, number)) => {
                    let wait = at_ms.saturating_sub(now_ms());
                    if wait == 0
                        && let Some(wish) = self.state().wishes.remove(&(at_ms, number))
                    {
                        return wish;
                    }
                    tokio::select! { biased;
                        () = self.1.notified() => {}
                        () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                    }
                }
            }
        }
    }

    /// The text of the next answer.
    fn answer(&self, client: u32, question: &Question) -> Submission {
        let mut state = self.state();
        state.answered += 1;
        script::answer(client, state.answered, &question.text)
    }
}

/// What the user said is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// Because too much has no verdict yet.
    pub(super) too_many: bool,
    /// Why.
    pub(super) problem: String,
}

/// What a user has of a client.
pub(super) trait Handle {
    /// The newest view, and each one that follows.
    fn view(&self) -> watch::Receiver<Arc<View>>;

    /// Says something; its id when it is taken.
    fn submit(&self, what: Submission) -> impl Future<Output = Result<String, Refused>> + Send;

    /// Wants to be connected.
    fn reconnect(&self) -> impl Future<Output = ()> + Send;
}

impl Handle for ClientHandle {
    fn view(&self) -> watch::Receiver<Arc<View>> {
        Self::view(self)
    }

    async fn submit(&self, what: Submission) -> Result<String, Refused> {
        let submitted = Self::submit(self, what).await;
        submitted.map(|id| id.to_string()).map_err(|error| Refused {
            too_many: error == SubmitError::TooManyInFlight,
            problem: error.to_string(),
        })
    }

    async fn reconnect(&self) {
        Self::reconnect(self).await;
    }
}

/// A page that a user looks at.
pub(super) struct Page<H> {
    pub(super) user: User,
    pub(super) process: Process,
    pub(super) client: u32,
    pub(super) ledger: Ledger,
    pub(super) handle: H,
    /// How long the user thinks about a question.
    pub(super) answer: Duration,
}

impl<H: Handle> Page<H> {
    /// Uses the page until it is to be loaded again.
    pub(super) async fn use_it(self) {
        let mut views = self.handle.view();
        // The question that the user thinks about, and when it will be answered.
        let mut thinking: Option<(Question, Instant)> = None;
        // When the user who was pushed aside comes back.
        let mut back_at: Option<Instant> = None;
        loop {
            let view = views.borrow_and_update().clone();
            self.ledger.state().views.insert(self.client, view.clone());
            thinking = match (to_answer(&view), thinking) {
                (None, _) => None,
                (Some(question), Some((same, at))) if same == *question => Some((same, at)),
                (Some(question), _) => Some((question.clone(), Instant::now() + self.answer)),
            };
            back_at = is_pushed_aside(&view)
                .then(|| back_at.unwrap_or_else(|| Instant::now() + COURTESY * self.client));
            let answer_at = thinking.as_ref().map(|(_, at)| *at);
            tokio::select! { biased;
                wish = self.user.next() => match wish {
                    // One who may not say it does not say it again.
                    Wish::Say(what) => drop(self.submit(what).await),
                    Wish::Reconnect => self.handle.reconnect().await,
                    Wish::Refresh => return,
                },
                () = at(answer_at) => {
                    if let Some((question, _)) = thinking.take() {
                        let answer = self.user.answer(self.client, &question);
                        let refused = self.submit(answer).await;
                        if refused.is_err_and(|refused| refused.too_many) {
                            thinking = Some((question, Instant::now() + PATIENCE));
                        }
                    }
                }
                changed = views.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                }
                () = at(back_at) => {
                    back_at = None;
                    // While faults are on the plan says who comes back.
                    if self.ledger.state().healed {
                        self.handle.reconnect().await;
                    }
                }
            }
        }
    }

    async fn submit(&self, what: Submission) -> Result<(), Refused> {
        let (Submission::Message { text, .. } | Submission::Answer { text }) = &what;
        let key = script::Text::parse(text).map(|text| text.key).unwrap_or_default();
        let result = self.handle.submit(what).await.map(|id| {
            let fact = Fact::Work(vec![key.clone()]);
            self.process.record_fact(Kind::App, format_args!("says {key} as {id}"), fact);
        });
        if let Err(refused) = &result {
            self.process.record(Kind::App, format_args!("cannot say {key}: {}", refused.problem));
        }
        result
    }
}

/// The question that the user has not answered.
fn to_answer(view: &View) -> Option<&Question> {
    let answered =
        view.pending.iter().any(|pending| matches!(pending.input.what, What::Answer { .. }));
    view.open_question.as_ref().filter(|_| !answered)
}

/// Whether another client of the same name was connected before everything was said here.
fn is_pushed_aside(view: &View) -> bool {
    view.connection == Connection::Superseded && !view.pending.is_empty()
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
