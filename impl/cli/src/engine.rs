//! The engine of a log that several servers share: where it is, and how it is reached.

use gapless::events::cluster::EngineLogConfig;
use gapless::events::cluster::nats::{self, ConnectError, JetStream, JetStreamConfig};

use crate::args::ServeArgs;
use crate::failure::Failure;

/// Addresses of NATS servers as they were given. They may have passwords in them, so they are looked at
/// only where the problem is told in our own words: whoever reads a command line prints what is wrong.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EngineUrls(String);

impl From<String> for EngineUrls {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for EngineUrls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&without_userinfo(&self.0))
    }
}

impl EngineUrls {
    fn parse(&self) -> Result<Vec<String>, Failure> {
        let has_scheme = ["nats://", "tls://"].iter().any(|scheme| self.0.starts_with(scheme));
        let urls: Option<_> = self.0.split(',').map(url).collect();
        urls.filter(|_| has_scheme).ok_or_else(|| {
            // Where a password ends is not known in what is no address.
            let problem = match self.0.contains('@') {
                true => "what `--log` says is no address of NATS".to_owned(),
                false => format!("`{}` is no address of NATS", self.0),
            };
            Failure::usage(problem).hint(
                "write `--log nats://host:4222`, with `%2C`, `%2F` and `%40` for `,`, `/` and `@` in a \
                 password; the look of the log on standard error is `--log-format`",
            )
        })
    }
}

/// An address with its scheme, which only the first has to have.
fn url(text: &str) -> Option<String> {
    let text = text.trim();
    let rest = text.strip_prefix("nats://").or_else(|| text.strip_prefix("tls://"));
    let host = rest.unwrap_or(text).rsplit('@').next().unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port);
    let is_host = !host.is_empty() && !text.contains(' ') && !rest.unwrap_or(text).contains('/');
    if !is_host || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    Some(match rest {
        Some(_) => text.to_owned(),
        None => format!("nats://{text}"),
    })
}

/// The name of a stream.
pub(crate) fn stream_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !text.is_empty() && text.len() <= 64 && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("a stream is named with 1 to 64 letters, digits, `-` and `_`".to_owned()),
    }
}

/// The option that names the engine.
pub(crate) const OPTION: &str = "log";

/// A list of URLs with `***` for each name and password in them.
pub(crate) fn without_userinfo(text: &str) -> String {
    match text.split(',').map(url).any(|url| url.is_none()) {
        // Where a password ends is not known in what is no address.
        true if text.contains('@') => "***".to_owned(),
        _ => nats::without_userinfo(text),
    }
}

/// The engine of the log as it was given, if one is named.
pub(crate) fn config(args: &ServeArgs) -> Result<Option<JetStreamConfig>, Failure> {
    let Some(urls) = &args.log else { return Ok(None) };
    let ids_max = EngineLogConfig::default().ids_max;
    Ok(Some(JetStreamConfig {
        stream: args.log_stream.clone(),
        replicas: args.log_replicas.into(),
        // What this limit removes leaves no ids behind, so those that are remembered stay.
        messages_per_subject: args.retain_events.map(|events| events.max(ids_max)),
        ..JetStreamConfig::new(urls.parse()?)
    }))
}

/// The engine itself.
pub(crate) async fn connect(config: Option<JetStreamConfig>) -> Result<Option<JetStream>, Failure> {
    match config {
        Some(config) => JetStream::connect(&config).await.map(Some).map_err(failure),
        None => Ok(None),
    }
}

/// The same, only if its stream is there already.
pub(crate) async fn connect_to_existing(
    urls: &EngineUrls,
    stream: String,
) -> Result<JetStream, Failure> {
    let config = JetStreamConfig { stream, ..JetStreamConfig::new(urls.parse()?) };
    JetStream::connect_to_existing(&config).await.map_err(failure)
}

fn failure(error: ConnectError) -> Failure {
    let hint = match error {
        ConnectError::Connect { .. } => "check `--log`, and that NATS runs with `--jetstream`",
        ConnectError::Create { .. } => "a single server of NATS keeps one copy: `--log-replicas 1`",
        ConnectError::Missing { .. } => "name another one with `--log-stream`",
        ConnectError::Configuration { .. } => {
            "change it with `nats stream edit`, or name another one with `--log-stream`"
        }
    };
    Failure::new(error.to_string()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none_and_no_password_is_shown() {
        let of = |text: &str| EngineUrls(text.to_owned());
        let urls = "nats://me:secret@n1:4222, n2, tls://token@n3:4222";
        let parsed = of(urls).parse().expect("addresses");
        assert_eq!(parsed, ["nats://me:secret@n1:4222", "nats://n2", "tls://token@n3:4222"]);
        assert_eq!(format!("{:?}", of(urls)), "nats://***@n1:4222, n2, tls://***@n3:4222");
        for wrong in [
            "nats://",
            "json",
            "n1:4222",
            "nats://n1/path",
            "nats://me:secret@n1/path",
            "nats://me:sec/secret@n1:4222",
            "nats://me:sec,secret@n1:4222",
            "nats://n1:port",
        ] {
            let refused = of(wrong).parse().expect_err(wrong).to_string();
            assert!(refused.contains("nats://host:4222") && !refused.contains("sec"), "{refused}");
        }
    }
}
