//! A backup that a running server makes of itself.

use std::time::Duration;

use bytes::Bytes;
use gapless::net::{RequestError, Requester};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request};

use super::args::BackupArgs;
use crate::exit;
use crate::failure::Failure;
use crate::secret::Secret;
use crate::serve::backup::{BackupBody, BackupName};
use crate::tls::ServerConnector;

/// How long a backup may take.
const TIMEOUT: Duration = Duration::from_secs(6 * 60 * 60);

pub(super) async fn run(
    args: &BackupArgs,
    name: &BackupName,
    token: &Secret,
) -> Result<u8, Failure> {
    let server = &args.server;
    let connector = ServerConnector::new(&server.url, server.tls_ca.as_deref())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v1/backups/{name}"))
        .header(HOST, server.url.authority())
        .header(AUTHORIZATION, format!("Bearer {}", token.reveal()))
        .body(Full::new(Bytes::new()))
        .map_err(|error| Failure::new(error.to_string()))?;
    let (status, body) = match Requester::new(TIMEOUT).send(&connector, request).await {
        Ok(answer) => answer,
        Err(RequestError::NotSent(problem)) => {
            return Err(Failure::new(format!("there is no backup: {problem}"))
                .hint("is the server there? for one that is stopped, use `--data` and `--to`"));
        }
        Err(RequestError::Unknown(problem)) => {
            return Err(Failure::new(format!(
                "it is not known whether there is a backup: {problem}"
            ))
            .hint("ask again under the same name: that is refused if it is there"));
        }
    };
    let said: BackupBody = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() {
        println!("{}", said.path);
        return Ok(exit::OK);
    }
    let problem = format!("there is no backup: status {}: {}", status.as_u16(), said.error);
    Err(match status.as_u16() {
        401 => Failure::refused(problem)
            .hint("check the token, and that the server's token file has its hash"),
        403 => Failure::refused(problem).hint("the token needs the role `operator`"),
        409 => Failure::new(problem).hint("give it another name, or wait for the other one"),
        _ => Failure::new(problem),
    })
}
