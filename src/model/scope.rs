//! Whom a ban, a limit or a revocation acts on.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Identity, UserId};

/// IPv6 counts by networks of this length, because a host owns at least that much (RFC 6177).
const IPV6_PREFIX: u8 = 64;

/// Whom a ban, a limit or a revocation acts on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A client address; of IPv6 the /64 that it is in.
    Address(IpAddr),
    /// Every address of a network.
    Range(IpNet),
    /// Every socket of a user.
    User(UserId),
    /// One login session.
    Session(String),
}

impl Scope {
    /// The scope of a client address.
    pub fn address(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(v6) => {
                let s = v6.segments();
                Self::Address(IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0)))
            }
            ip @ IpAddr::V4(_) => Self::Address(ip),
        }
    }

    /// The scope of a network: one that is no larger than what an address counts by is that address.
    pub fn network(net: IpNet) -> Self {
        let net = net.trunc();
        match net {
            IpNet::V4(v4) if v4.prefix_len() == 32 => Self::address(net.addr()),
            IpNet::V6(v6) if v6.prefix_len() >= IPV6_PREFIX => Self::address(net.addr()),
            net => Self::Range(net),
        }
    }

    /// The scope that blocks act on once a token was verified: the session, else the user.
    pub fn of(identity: &Identity) -> Self {
        identity
            .session
            .as_ref()
            .map_or_else(|| Self::User(identity.user.clone()), |sid| Self::Session(sid.clone()))
    }

    /// Whether it names addresses rather than people.
    pub fn is_address(&self) -> bool {
        matches!(self, Self::Address(_) | Self::Range(_))
    }

    /// Whether a client at this address is in it; people are not looked at.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        match self {
            Self::Address(_) => Self::address(ip) == *self,
            Self::Range(net) => net.contains(&ip.to_canonical()),
            Self::User(_) | Self::Session(_) => false,
        }
    }

    /// Whether this user and login are in it; addresses are not looked at.
    pub fn has_identity(&self, identity: &Identity) -> bool {
        match self {
            Self::Address(_) | Self::Range(_) => false,
            Self::User(user) => identity.user == *user,
            Self::Session(sid) => identity.session.as_ref() == Some(sid),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(v6)) => write!(f, "ip:{v6}/{IPV6_PREFIX}"),
            Self::Address(ip) => write!(f, "ip:{ip}"),
            Self::Range(net) => write!(f, "ip:{net}"),
            Self::User(user) => write!(f, "user:{user}"),
            Self::Session(sid) => write!(f, "session:{sid}"),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    /// Reads `ip:<address or network>`, `user:<platformid>` or `session:<sid>`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "say ip:192.0.2.7, ip:192.0.2.0/24, user:<platformid> or session:<sid>";
        let (kind, rest) = text
            .split_once(':')
            .ok_or_else(|| format!("`{text}` is no scope: {FORMS}"))?;
        match kind {
            "ip" => rest
                .parse()
                .map(Self::address)
                .or_else(|_| rest.parse().map(Self::network))
                .map_err(|_| format!("`{rest}` is no IP address and no network: {FORMS}")),
            "user" => UserId::new(rest)
                .map(Self::User)
                .map_err(|error| format!("user {error}")),
            // It becomes part of key names, so it obeys the same rules as a user's id.
            "session" => UserId::new(rest)
                .map(|sid| Self::Session(sid.to_string()))
                .map_err(|error| format!("session {error}")),
            _ => Err(format!("`{kind}` is no kind of scope: {FORMS}")),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Scope {
        Scope::address(text.parse().unwrap())
    }

    #[test]
    fn ipv6_addresses_of_one_network_share_a_scope() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_eq!("ip:2001:db8::7".parse::<Scope>().unwrap(), address("2001:db8::1"));
        assert_eq!("ip:2001:db8::/64".parse::<Scope>().unwrap(), address("2001:db8::1"));
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for text in [
            "ip:192.0.2.7",
            "ip:192.0.2.0/24",
            "ip:2001:db8::/64",
            "ip:2001:db8::/32",
            "user:p1",
            "session:s:1",
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        assert_eq!(
            "ip:192.0.2.9/24".parse::<Scope>().unwrap().to_string(),
            "ip:192.0.2.0/24"
        );
        for bad in [
            "",
            "192.0.2.7",
            "ip:",
            "ip:x",
            "ip:192.0.2.0/40",
            "user:",
            "session:{a}",
            "room:r",
        ] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        let net: Scope = "ip:192.0.2.0/24".parse().unwrap();
        assert!(net.has_address("192.0.2.200".parse().unwrap()));
        assert!(net.has_address("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!net.has_address("192.0.3.1".parse().unwrap()));
    }
}
