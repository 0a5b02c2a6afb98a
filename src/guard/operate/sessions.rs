//! Who is connected, where; and how to close connections.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use serde::Serialize;

use super::{Operate, order};
use crate::model::{RoomId, Scope, UnixMs, UserId};
use crate::redis::{Act, OwnedSocket, RedisError};

/// A connected socket.
#[derive(Debug, Clone, Serialize)]
pub struct Session {
    /// Its id.
    pub socket: String,
    /// Its user.
    pub user: UserId,
    /// Its login session, where the token names one.
    pub login: Option<String>,
    /// Where it comes from.
    pub ip: Option<IpAddr>,
    /// The node that serves it.
    pub node: String,
    /// When it connected, Unix ms.
    pub since: UnixMs,
    /// The rooms of its user.
    pub rooms: Vec<RoomId>,
}

/// Which sockets are wanted; all of it must hold.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Those in this scope.
    pub scopes: Vec<Scope>,
    /// Those of the nodes whose ids begin so.
    pub node: Option<String>,
}

impl SessionFilter {
    /// Those of a user, of a login, and at an address or in a network; whatever is absent does not matter.
    pub fn new(
        user: Option<&str>,
        login: Option<&str>,
        ip: Option<&str>,
        node: Option<String>,
    ) -> Result<Self, order::BadOrder> {
        let scopes = [user.map(of_user), login.map(of_login), ip.map(of_address)];
        Ok(Self {
            scopes: scopes.into_iter().flatten().collect::<Result<_, _>>()?,
            node,
        })
    }

    fn has(&self, socket: &OwnedSocket) -> bool {
        self.scopes.iter().all(|scope| has(scope, socket))
    }
}

/// Some of the connected sockets.
#[derive(Debug, Serialize)]
pub struct SessionList {
    /// By user, the oldest first.
    pub sessions: Vec<Session>,
    /// How many there are in all.
    pub total: usize,
    /// The server's time, Unix ms.
    pub now: UnixMs,
}

/// What became of a kick.
#[derive(Debug, Serialize)]
pub struct Kicked {
    /// Whom it was for.
    pub target: String,
    /// How many sockets were known.
    pub sockets: usize,
    /// What the operator may not have meant.
    pub warnings: Vec<String>,
}

/// Whose connections are to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One socket.
    Socket(String),
    /// All of a user, a login, an address or a network.
    Scope(Scope),
}

impl Target {
    /// Reads a target; exactly one must be named.
    pub fn new(
        socket: Option<&str>,
        user: Option<&str>,
        login: Option<&str>,
        ip: Option<&str>,
    ) -> Result<Self, order::BadOrder> {
        let scope = |scope: Result<Scope, _>| scope.map(Self::Scope);
        match (socket, user, login, ip) {
            // Socket ids obey the rules of user ids as well.
            (Some(socket), None, None, None) => Ok(Self::Socket(id("socket", socket)?.to_string())),
            (None, Some(user), None, None) => scope(of_user(user)),
            (None, None, Some(login), None) => scope(of_login(login)),
            (None, None, None, Some(ip)) => scope(of_address(ip)),
            _ => Err(order::BadOrder {
                what: "target",
                problem: "must be exactly one socket, user, login session or address".to_owned(),
            }),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(socket) => write!(f, "socket:{socket}"),
            Self::Scope(scope) => scope.fmt(f),
        }
    }
}

fn id(what: &'static str, text: &str) -> Result<UserId, order::BadOrder> {
    UserId::new(text).map_err(|error| order::BadOrder {
        what,
        problem: error.to_string(),
    })
}

fn of_user(text: &str) -> Result<Scope, order::BadOrder> {
    id("user", text).map(Scope::User)
}

fn of_login(text: &str) -> Result<Scope, order::BadOrder> {
    id("login", text).map(|sid| Scope::Session(sid.to_string()))
}

fn of_address(text: &str) -> Result<Scope, order::BadOrder> {
    let scope = order::read_scope(text).ok().filter(Scope::is_address);
    scope.ok_or_else(|| order::BadOrder {
        what: "ip",
        problem: format!("`{text}` is no address: say 192.0.2.7 or 192.0.2.0/24"),
    })
}

fn has(scope: &Scope, socket: &OwnedSocket) -> bool {
    match scope {
        Scope::Address(_) | Scope::Range(_) => socket.ip.is_some_and(|ip| scope.has_address(ip)),
        Scope::User(user) => socket.user == *user,
        Scope::Session(sid) => socket.login.as_ref() == Some(sid),
    }
}

impl Operate {
    /// The connected sockets of all nodes, at most `limit` of them. A socket is known a moment after it connected.
    pub async fn sessions(&self, filter: &SessionFilter, limit: usize) -> Result<SessionList, RedisError> {
        let (mut first, mut total) = (BTreeMap::new(), 0);
        for node in self.redis.live_nodes().await? {
            if filter.node.as_ref().is_some_and(|wanted| !node.starts_with(wanted)) {
                continue;
            }
            // A scan may show a socket twice.
            let mut seen = HashSet::new();
            let visit = |socket: OwnedSocket| {
                if !filter.has(&socket) || !seen.insert(socket.socket.clone()) {
                    return;
                }
                total += 1;
                let place = (socket.user.clone(), socket.since, socket.socket.clone());
                first.insert(place, session(socket, &node));
                // However many there are, no more than these are held.
                if first.len() > limit {
                    first.pop_last();
                }
            };
            self.redis.each_socket(&node, visit).await?;
        }
        Ok(SessionList {
            sessions: first.into_values().collect(),
            total,
            now: self.redis.server_time().await?,
        })
    }

    /// Closes the connections of a target on every node; they may come back at once. Nodes are told also where no socket is
    /// known: one that has just connected is not yet.
    pub async fn kick(&self, target: &Target, by: &str) -> Result<Kicked, RedisError> {
        let code = "kicked".to_owned();
        let (known, act) = match target.clone() {
            Target::Socket(socket) => {
                let known = self.node_of(&socket).await?.is_some();
                (usize::from(known), Act::Kick { socket, code })
            }
            Target::Scope(scope) => (self.count(&scope).await?, Act::Cut { scope, code }),
        };
        self.redis.publish_act(&act).await?;
        self.redis.audit("kick", target.to_string(), String::new(), by).await?;
        let warning = match target {
            Target::Socket(_) => None,
            Target::Scope(scope) => self.allowed(scope),
        };
        Ok(Kicked {
            target: target.to_string(),
            sockets: known,
            warnings: warning.into_iter().collect(),
        })
    }

    /// How many sockets of a scope are connected.
    pub(super) async fn count(&self, scope: &Scope) -> Result<usize, RedisError> {
        let filter = SessionFilter {
            scopes: vec![scope.clone()],
            node: None,
        };
        Ok(self.sessions(&filter, 0).await?.total)
    }

    async fn node_of(&self, socket: &str) -> Result<Option<String>, RedisError> {
        for node in self.redis.live_nodes().await? {
            if self.redis.owns_socket(&node, socket).await? {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }
}

fn session(socket: OwnedSocket, node: &str) -> Session {
    Session {
        socket: socket.socket,
        user: socket.user,
        login: socket.login,
        ip: socket.ip,
        node: node.to_owned(),
        since: socket.since,
        rooms: socket.rooms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_exactly_one_thing() {
        let target = |socket, user, login, ip| Target::new(socket, user, login, ip).map(|target| target.to_string());
        assert_eq!(target(Some("abc"), None, None, None).unwrap(), "socket:abc");
        assert_eq!(target(None, Some("p1"), None, None).unwrap(), "user:p1");
        assert_eq!(target(None, None, Some("s1"), None).unwrap(), "session:s1");
        assert_eq!(
            target(None, None, None, Some("192.0.2.0/24")).unwrap(),
            "ip:192.0.2.0/24"
        );
        assert!(target(None, None, None, None).is_err());
        assert!(target(Some("abc"), Some("p1"), None, None).is_err());
        assert!(target(None, None, None, Some("user:p1")).is_err());
        assert!(target(None, Some(""), None, None).is_err());
    }
}
