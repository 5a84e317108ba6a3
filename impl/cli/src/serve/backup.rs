//! Backups that a running server makes of itself.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use gapless::net::http;
use gapless::storage::{BackupError, Backups};
use gapless::{events, session, tasks};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::tokens::Tokens;
use crate::log::{EVENTS, NewBackup, SESSIONS, TASKS};

/// The folder of backups in a data folder.
pub(crate) const FOLDER: &str = "backups";

/// Where backups are asked for, before the name.
pub(crate) const PATH: &str = "/v1/backups/";

/// The longest name of a backup, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The name of a backup, which is that of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupName(String);

impl BackupName {
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match fits && name.bytes().all(plain) {
            true => Ok(Self(name.to_owned())),
            false => Err(format!(
                "a backup is named with 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, \
                 and not with a `.` first"
            )),
        }
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The answer to a request for a backup.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct BackupBody {
    /// Where it is, on the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
}

/// Who may have the databases copied, and how.
#[derive(Clone)]
pub(crate) struct Operator(Arc<Copies>);

struct Copies {
    tokens: Tokens,
    folder: PathBuf,
    /// `None` if events have their log elsewhere.
    events: Option<Backups<events::log::Command>>,
    tasks: Backups<tasks::controller::record::Command>,
    sessions: Backups<session::conversation::Command>,
    /// One at a time.
    under_way: Mutex<()>,
}

type Refusal = (StatusCode, String);

impl Operator {
    pub(crate) fn new(
        tokens: Tokens,
        folder: PathBuf,
        events: Option<Backups<events::log::Command>>,
        tasks: Backups<tasks::controller::record::Command>,
        sessions: Backups<session::conversation::Command>,
    ) -> Self {
        let under_way = Mutex::new(());
        Self(Arc::new(Copies { tokens, folder, events, tasks, sessions, under_way }))
    }

    /// `POST /v1/backups/{name}`.
    pub(crate) async fn call(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match self.backup(request).await {
            Ok(path) => {
                let path = path.display().to_string();
                let body = BackupBody { path, ..BackupBody::default() };
                http::json(StatusCode::CREATED, &body)
            }
            Err((status, error)) => http::error(status, &error),
        }
    }

    async fn backup(&self, request: &Request<Incoming>) -> Result<PathBuf, Refusal> {
        let refused = |status, error: &str| Err((status, error.to_owned()));
        // Before anything is looked at.
        match http::token(request).and_then(|token| self.0.tokens.is_operator(&token)) {
            Some(true) => {}
            Some(false) => {
                return refused(StatusCode::FORBIDDEN, "the token does not allow backups");
            }
            None => {
                return refused(StatusCode::UNAUTHORIZED, "the token is missing or not valid");
            }
        }
        if request.method() != Method::POST {
            let error = "this path has another method";
            return refused(StatusCode::METHOD_NOT_ALLOWED, error);
        }
        let name = request.uri().path().strip_prefix(PATH).unwrap_or_default();
        let name = BackupName::parse(name).map_err(|error| (StatusCode::BAD_REQUEST, error))?;
        let Ok(_alone) = self.0.under_way.try_lock() else {
            return refused(StatusCode::CONFLICT, &BackupError::UnderWay.to_string());
        };
        let path = self.0.folder.join(name.to_string());
        if path.exists() {
            return refused(StatusCode::CONFLICT, "there is a backup of that name");
        }
        let broken = |error: String| {
            tracing::error!(%error, "a backup failed");
            (StatusCode::INTERNAL_SERVER_ERROR, error)
        };
        let begun = NewBackup::begin(&path).map_err(|failure| broken(failure.to_string()))?;
        let Copies { events, tasks, sessions, .. } = &*self.0;
        let failed = |error: BackupError| match error {
            BackupError::UnderWay => (StatusCode::CONFLICT, error.to_string()),
            BackupError::Ending => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            BackupError::Failed(error) => broken(error),
        };
        let mut names = vec![TASKS, SESSIONS];
        if let Some(events) = events {
            names.insert(0, EVENTS);
            events.copy(begun.file(EVENTS)).await.map_err(failed)?;
        }
        tasks.copy(begun.file(TASKS)).await.map_err(failed)?;
        sessions.copy(begun.file(SESSIONS)).await.map_err(failed)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "large files are hashed and synced, and no simulation has this command in it"
        )]
        let finished = tokio::task::spawn_blocking(move || begun.finish(&names)).await;
        match finished {
            Ok(Ok(())) => {
                tracing::info!(path = %path.display(), "a backup was made");
                Ok(path)
            }
            Ok(Err(failure)) => Err(broken(failure.to_string())),
            Err(error) => Err(broken(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_backup_leads_nowhere_else() {
        for name in ["2026-11-29", "a", "before_upgrade.2"] {
            BackupName::parse(name).expect("a name");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", ".hidden", "a/b", "../x", "a b", "ü", "a%2Fb", "a\0", &long] {
            BackupName::parse(name).expect_err(name);
        }
    }
}
