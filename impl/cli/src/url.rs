//! Where a server is.

use std::fmt;
use std::str::FromStr;

/// `http://host:port` or `https://host:port`; nothing else is needed to find a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    tls: bool,
    host: String,
    port: u16,
}

impl ServerUrl {
    /// `host:port`, for the network and the `Host` header.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The name or address that a certificate has to be for.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| "it has no scheme; write `http://host:port`".to_owned())?;
        let tls = match scheme {
            "http" | "ws" => false,
            "https" | "wss" => true,
            other => {
                return Err(format!(
                    "`{other}` is no scheme of a server; there are http and https"
                ));
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err("it has more than a host and a port; write `http://host:port`".to_owned());
        }
        let port = |port: &str| port.parse().map_err(|_| format!("`{port}` is no port"));
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside of its brackets.
            Some((host, digits)) if !digits.ends_with(']') => (host, port(digits)?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        match host {
            "" => Err("it has no host".to_owned()),
            host => Ok(Self { tls, host: host.to_owned(), port }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        let authority = |text: &str| text.parse::<ServerUrl>().map(|url| url.authority());
        assert_eq!(authority("http://localhost:7117/"), Ok("localhost:7117".to_owned()));
        assert_eq!(authority("ws://example.org"), Ok("example.org:80".to_owned()));
        assert_eq!(authority("http://[::1]:8"), Ok("[::1]:8".to_owned()));
        assert_eq!(authority("http://[::1]"), Ok("[::1]:80".to_owned()));
        assert_eq!(authority("wss://example.org"), Ok("example.org:443".to_owned()));
        let host = |text: &str| text.parse::<ServerUrl>().map(|url| url.host().to_owned());
        assert_eq!(host("https://[::1]:8"), Ok("::1".to_owned()));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in ["localhost:7117", "ftp://a", "http://", "http://a:b", "http://a/v1"] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
    }
}
