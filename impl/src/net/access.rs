//! Who may do what.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::AgentId;

/// What a token stands for [CORE-14].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who it is. Idempotency keys belong to a principal.
    pub principal: String,
    /// The agent whose stream may be read, if any.
    pub stream: Option<AgentId>,
    /// Whether events may be published, and tasks submitted.
    pub publish: bool,
}

/// Knows tokens.
pub trait Access: Send + Sync + 'static {
    /// What the token stands for; `None` if it is not valid.
    fn grant(&self, token: &str) -> Option<Grant>;
}

/// Tokens that can be replaced while the server runs; all clones change together.
///
/// A token is asked for when a request or a connection comes. What is open stays open: a connection
/// whose token is not valid any more goes on until it ends for another reason.
#[derive(Clone)]
pub struct Replaceable(Arc<RwLock<Arc<dyn Access>>>);

impl fmt::Debug for Replaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replaceable").finish_non_exhaustive()
    }
}

impl Replaceable {
    /// Begins with these.
    pub fn new(access: Arc<dyn Access>) -> Self {
        Self(Arc::new(RwLock::new(access)))
    }

    /// From now on these hold, and no others.
    pub fn replace(&self, access: Arc<dyn Access>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = access;
    }
}

impl Access for Replaceable {
    fn grant(&self, token: &str) -> Option<Grant> {
        let access = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        access.grant(token)
    }
}

/// A fixed table of tokens.
#[derive(Clone, Default)]
pub struct Tokens(BTreeMap<String, Grant>);

impl fmt::Debug for Tokens {
    /// Who is let in, without the tokens, so that they do not end up in a log [CORE-14].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.values()).finish()
    }
}

impl Tokens {
    /// Lets the bearer of `token` read the stream of `agent`.
    pub fn subscriber(mut self, token: &str, agent: AgentId) -> Self {
        let principal = agent.as_str().to_owned();
        let grant = Grant { principal, stream: Some(agent), publish: false };
        self.0.insert(token.to_owned(), grant);
        self
    }

    /// Lets the bearer of `token` have a conversation, as `principal`.
    pub fn user(mut self, token: &str, principal: &str) -> Self {
        let grant = Grant { principal: principal.to_owned(), stream: None, publish: false };
        self.0.insert(token.to_owned(), grant);
        self
    }

    /// Lets the bearer of `token` publish to every agent and give it tasks, as `principal`.
    pub fn publisher(mut self, token: &str, principal: &str) -> Self {
        let grant = Grant { principal: principal.to_owned(), stream: None, publish: true };
        self.0.insert(token.to_owned(), grant);
        self
    }
}

impl Access for Tokens {
    fn grant(&self, token: &str) -> Option<Grant> {
        self.0.get(token).cloned()
    }
}
