//! The engine of a log that several servers share: where it is, and how it is reached.

use gapless::events::cluster::EngineLogConfig;
use gapless::events::cluster::nats::{ConnectError, JetStream, JetStreamConfig};

use crate::args::ServeArgs;
use crate::failure::Failure;

/// Addresses of NATS servers. They may have passwords in them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EngineUrls(Vec<String>);

impl EngineUrls {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.starts_with("nats://") || text.starts_with("tls://") {
            true => text.split(',').map(url).collect::<Result<_, _>>().map(Self),
            false => Err(no_address(text)),
        }
    }
}

impl std::fmt::Debug for EngineUrls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&without_userinfo(&self.0.join(",")))
    }
}

fn url(text: &str) -> Result<String, String> {
    let text = text.trim();
    let host = text.strip_prefix("nats://").or_else(|| text.strip_prefix("tls://"));
    // Only the first has to say what it is.
    match host.unwrap_or(text) {
        host if host.is_empty() || host.contains('/') || host.contains(' ') => {
            Err(no_address(text))
        }
        host if host == text => Ok(format!("nats://{host}")),
        _ => Ok(text.to_owned()),
    }
}

fn no_address(text: &str) -> String {
    format!(
        "`{}` is no address of NATS; write it as `nats://host:4222`; the look of the log on standard \
         error is `--log-format`",
        without_userinfo(text)
    )
}

/// The name of a stream.
pub(crate) fn stream_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !text.is_empty() && text.len() <= 64 && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("a stream is named with 1 to 64 letters, digits, `-` and `_`".to_owned()),
    }
}

/// A list of URLs with `***` for each name and password in them.
pub(crate) fn without_userinfo(text: &str) -> String {
    let shown = text.split(',').map(|url| match url.rsplit_once('@') {
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://***@{host}"),
            None => format!("***@{host}"),
        },
        None => url.to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The engine of the log, if one is named.
pub(crate) async fn connect(args: &ServeArgs) -> Result<Option<JetStream>, Failure> {
    let Some(EngineUrls(servers)) = args.log.clone() else { return Ok(None) };
    let ids_max = EngineLogConfig::default().ids_max;
    let config = JetStreamConfig {
        stream: args.log_stream.clone(),
        replicas: args.log_replicas.into(),
        // What this limit removes leaves no ids behind, so those that are remembered stay.
        messages_per_subject: args.retain_events.map(|events| events.max(ids_max)),
        ..JetStreamConfig::new(servers)
    };
    JetStream::connect(&config).await.map(Some).map_err(failure)
}

/// The same, only if its stream is there already.
pub(crate) async fn connect_to_existing(
    EngineUrls(servers): EngineUrls,
    stream: String,
) -> Result<JetStream, Failure> {
    let config = JetStreamConfig { stream, ..JetStreamConfig::new(servers) };
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
    fn names_and_passwords_of_urls_are_not_shown() {
        let urls = "nats://me:se@cret@n1:4222,n2:4222,tls://token@n3:4222";
        let shown = "nats://***@n1:4222,n2:4222,tls://***@n3:4222";
        assert_eq!(without_userinfo(urls), shown);
        let parsed = EngineUrls::parse(urls).expect("addresses");
        assert_eq!(format!("{parsed:?}"), "nats://***@n1:4222,nats://n2:4222,tls://***@n3:4222");
        let refused = EngineUrls::parse("nats://me:secret@n1/path").expect_err("it has a path");
        assert!(refused.contains("n1/path") && !refused.contains("secret"), "{refused}");
        assert_eq!(without_userinfo("0.0.0.0:7117"), "0.0.0.0:7117");
    }
}
