//! Who a socket belongs to, and whom a block can hit.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::{UnixMs, UserId};

/// A verified user: what the access token says, never what a payload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id.
    pub user: UserId,
    /// The display name, compared case-insensitively with what the client claims.
    pub username: String,
    /// The login session (`sid` claim), when the auth service names one.
    pub session: Option<String>,
    /// When the access token was issued; `None` when it does not say.
    pub issued_at: Option<UnixMs>,
    /// When the access token ends; `None` when the auth service does not say.
    pub expires_at: Option<UnixMs>,
}

/// The address a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The client.
    pub ip: IpAddr,
    /// The peer is in a private network, forwards for others and is not declared: it must never be blocked.
    pub undeclared_proxy: bool,
}

/// Whom a block, a limit or a revocation acts on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A client address; IPv6 counts by /64, because a host owns at least that much.
    Address(IpAddr),
    /// Every socket of a user.
    User(UserId),
    /// One login session.
    Session(String),
}

impl Scope {
    /// The scope of a client address.
    pub fn address(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Self::Address(IpAddr::V4(v4)),
                None => {
                    let s = v6.segments();
                    Self::Address(IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0)))
                }
            },
            IpAddr::V4(_) => Self::Address(ip),
        }
    }

    /// The scope that blocks act on once a token was verified: the session, else the user.
    pub fn of(identity: &Identity) -> Self {
        identity
            .session
            .as_ref()
            .map_or_else(|| Self::User(identity.user.clone()), |sid| Self::Session(sid.clone()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "ip:{ip}"),
            Self::User(user) => write!(f, "user:{user}"),
            Self::Session(sid) => write!(f, "session:{sid}"),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text
            .split_once(':')
            .ok_or_else(|| format!("`{text}` is no scope: say ip:…, user:… or session:…"))?;
        match kind {
            "ip" => rest
                .parse()
                .map(Self::address)
                .map_err(|_| format!("`{rest}` is no IP address")),
            "user" => UserId::new(rest)
                .map(Self::User)
                .map_err(|error| format!("user {error}")),
            "session" => Ok(Self::Session(rest.to_owned())),
            _ => Err(format!("`{kind}` is no scope: say ip, user or session")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_of_one_network_share_a_scope() {
        let scope = |text: &str| Scope::address(text.parse().unwrap());
        assert_eq!(scope("2001:db8::1"), scope("2001:db8::ffff:2"));
        assert_ne!(scope("2001:db8::1"), scope("2001:db8:0:1::1"));
        assert_eq!(scope("::ffff:10.0.0.1"), scope("10.0.0.1"));
        assert_eq!("ip:2001:db8::7".parse::<Scope>().unwrap(), scope("2001:db8::1"));
    }
}
