//! Where a server is.

use std::fmt;
use std::str::FromStr;

/// `http://host:port`; nothing else is needed to find a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    host: String,
    port: u16,
}

impl ServerUrl {
    /// `host:port`, for the network and the `Host` header.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| "it has no scheme; write `http://host:port`".to_owned())?;
        match scheme {
            "http" | "ws" => {}
            "https" | "wss" => {
                return Err("TLS is not supported; put a proxy that ends TLS in between".to_owned());
            }
            other => return Err(format!("`{other}` is no scheme for a server; write `http`")),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err("it has more than a host and a port; write `http://host:port`".to_owned());
        }
        let port = |port: &str| port.parse().map_err(|_| format!("`{port}` is no port"));
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside of its brackets.
            Some((host, digits)) if !digits.ends_with(']') => (host, port(digits)?),
            _ => (authority, 80),
        };
        match host {
            "" => Err("it has no host".to_owned()),
            host => Ok(Self { host: host.to_owned(), port }),
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
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in ["localhost:7117", "ftp://a", "http://", "http://a:b", "http://a/v1", "wss://a"]
        {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
    }
}
