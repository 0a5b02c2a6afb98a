//! Where the server is.

use super::ConnectError;

/// The part of a URL that both transports need.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// Host and port as they stand in the `Host` header.
    pub authority: String,
    port: u16,
}

impl Address {
    /// Accepts `http://host[:port]` and `ws://host[:port]`; a path is ignored, TLS is not spoken.
    pub fn parse(url: &str) -> Result<Self, ConnectError> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://"));
        let rest = rest.ok_or_else(|| ConnectError::Transport(format!("not an http:// address: {url}")))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest).to_owned();
        let port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port
                .parse()
                .map_err(|_| ConnectError::Transport(format!("bad port in {url}")))?,
            _ => 80,
        };
        Ok(Self { authority, port })
    }

    /// The host without brackets, and the port.
    pub fn host_port(&self) -> (&str, u16) {
        let host = self
            .authority
            .strip_suffix(&format!(":{}", self.port))
            .unwrap_or(&self.authority);
        (host.trim_start_matches('[').trim_end_matches(']'), self.port)
    }

    /// Path and query of the Engine.IO endpoint.
    pub fn path(transport: &str, sid: Option<&str>) -> String {
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        format!("/socket.io/?EIO=4&transport={transport}{sid}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_found() {
        let parse = |url| Address::parse(url).unwrap();
        assert_eq!(parse("http://127.0.0.1:8080").host_port(), ("127.0.0.1", 8080));
        assert_eq!(parse("ws://localhost/x?y").host_port(), ("localhost", 80));
        assert_eq!(parse("http://[::1]:99/").host_port(), ("::1", 99));
        assert_eq!(parse("http://[::1]").host_port(), ("::1", 80));
        assert!(Address::parse("https://x").is_err());
        assert!(Address::parse("http://x:y").is_err());
    }
}
