//! What an operator asks for, checked.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{Millis, Setting};
use crate::model::{Ban, Scope, UserId};

/// How long a ban lasts that does not end: nobody who set it is still there then, and every clock can count so far.
const FOREVER: Duration = Duration::from_secs(100 * 365 * DAY);
/// How long a ban lasts where nobody says.
const LENGTH: Duration = Duration::from_secs(DAY);
/// Seconds of a day.
const DAY: u64 = 24 * 3600;
/// The longest reason, in bytes: it goes to every node and to the clients it hits.
const REASON_MAX: usize = 200;
/// Networks of which one rarely means to ban the peers: nodes, proxies and probes live there.
const OURS: [(&str, &str); 8] = [
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("169.254.0.0/16", "link-local"),
    ("fc00::/7", "private"),
];

/// Something asked for that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct BadOrder {
    /// The argument.
    pub what: &'static str,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// A ban to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanOrder {
    /// Whom it keeps out.
    pub scope: Scope,
    /// For how long.
    pub length: Duration,
    /// Why.
    pub reason: String,
    /// Who wants it.
    pub by: String,
}

impl BanOrder {
    /// Checks what was asked for; 24 hours where no length is given.
    pub fn new(scope: &str, length: Option<&str>, reason: Option<&str>, by: &str) -> Result<Self, BadOrder> {
        let (what, problem) = (
            "reason",
            format!("must be 1 to {REASON_MAX} bytes without control characters"),
        );
        let reason = reason.unwrap_or("operator").trim();
        if reason.is_empty() || reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
            return Err(BadOrder { what, problem });
        }
        Ok(Self {
            scope: read_scope(scope)?,
            length: length.map_or(Ok(LENGTH), read_length)?,
            reason: reason.to_owned(),
            by: read_actor(by)?,
        })
    }
}

/// Reads a scope as people write it: an address or a network may stand alone.
pub fn read_scope(text: &str) -> Result<Scope, BadOrder> {
    const FORMS: &str = "say 192.0.2.7, 192.0.2.0/24, user:<platformid> or session:<sid>";
    let (text, what) = (text.trim(), "scope");
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Scope::address(ip));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(Scope::network(net));
    }
    if !text.contains(':') {
        let problem = format!("`{text}` is neither an address nor a user or session: {FORMS}");
        return Err(BadOrder { what, problem });
    }
    text.parse().map_err(|problem| BadOrder { what, problem })
}

/// Reads the name of who acts.
pub fn read_actor(text: &str) -> Result<String, BadOrder> {
    // The rules of ids fit: nothing that forges a line of a log or a table.
    let name = UserId::new(text.trim()).map_err(|error| BadOrder {
        what: "by",
        problem: error.to_string(),
    })?;
    Ok(name.to_string())
}

/// Reads `30m`, `2h`, `7d` or `forever`.
fn read_length(text: &str) -> Result<Duration, BadOrder> {
    let bad = || BadOrder {
        what: "for",
        problem: format!("`{text}` is no length of a ban: say 30m, 2h, 7d or forever"),
    };
    let text = text.trim();
    if text == "forever" {
        return Ok(FOREVER);
    }
    let length = match text.strip_suffix('d') {
        Some(days) => days
            .parse()
            .ok()
            .and_then(|days: u64| days.checked_mul(DAY))
            .map(Duration::from_secs),
        // A number alone would be milliseconds, which nobody means.
        None if text.ends_with(|c: char| c.is_ascii_digit()) => None,
        None => Millis::parse(text).ok().map(|length| *length),
    };
    length
        .filter(|length| (Duration::from_secs(1)..=FOREVER).contains(length))
        .ok_or_else(bad)
}

/// Whether a ban was meant to last for ever.
pub fn is_forever(ban: &Ban) -> bool {
    Duration::from_millis(ban.until.saturating_sub(ban.since)) >= FOREVER
}

/// The addresses of a scope.
pub(super) fn network(scope: &Scope) -> Option<IpNet> {
    match scope {
        Scope::Range(net) => Some(*net),
        Scope::Address(ip) => IpNet::new(*ip, if ip.is_ipv4() { 32 } else { 64 }).ok(),
        Scope::User(_) | Scope::Session(_) => None,
    }
}

/// Says so where a scope has addresses that are probably the operator's own.
pub(super) fn hits_ours(scope: &Scope) -> Option<String> {
    let net = network(scope)?;
    if net.prefix_len() == 0 {
        return Some(format!("{net} is everybody"));
    }
    let (ours, kind) = OURS.into_iter().find(|(ours, _)| {
        let ours: Option<IpNet> = ours.parse().ok();
        ours.is_some_and(|ours| ours.contains(&net) || net.contains(&ours))
    })?;
    Some(format!(
        "{ours} is a {kind} network: if a proxy there is not in TRUSTED_PROXIES, everybody behind it is kept out"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_people_write_them() {
        for (text, scope) in [
            ("192.0.2.7", "ip:192.0.2.7"),
            (" 192.0.2.9/24 ", "ip:192.0.2.0/24"),
            ("2001:db8::7", "ip:2001:db8::/64"),
            ("2001:db8::/32", "ip:2001:db8::/32"),
            ("ip:192.0.2.7", "ip:192.0.2.7"),
            ("user:p1", "user:p1"),
            ("session:a:b", "session:a:b"),
        ] {
            assert_eq!(read_scope(text).unwrap().to_string(), scope);
        }
        for bad in ["", "p1", "192.0.2", "room:r", "user:", "user:{a}", "192.0.2.0/40"] {
            let error = read_scope(bad).unwrap_err().to_string();
            assert!(error.starts_with("scope ") && error.len() > 20, "{bad}: {error}");
        }
    }

    #[test]
    fn an_order_without_a_length_lasts_a_day() {
        let order = BanOrder::new("user:p1", None, None, "kim").unwrap();
        assert_eq!((order.length, order.reason.as_str()), (LENGTH, "operator"));
        let length = |text| BanOrder::new("user:p1", Some(text), None, "kim").map(|order| order.length);
        assert_eq!(length("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(length("7d"), Ok(Duration::from_secs(7 * DAY)));
        assert_eq!(length("forever"), Ok(FOREVER));
        for bad in ["", "60", "0s", "200ms", "-1h", "ever", "99999999999d", "40000d", "1w"] {
            assert!(length(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_would_forge_a_line_is_refused() {
        assert!(BanOrder::new("user:p1", None, Some("a\nb"), "kim").is_err());
        assert!(BanOrder::new("user:p1", None, Some(" "), "kim").is_err());
        assert!(BanOrder::new("user:p1", None, Some(&"x".repeat(201)), "kim").is_err());
        assert!(BanOrder::new("user:p1", None, None, "k\u{1b}[2Jim").is_err());
        assert!(BanOrder::new("user:p1", None, None, "").is_err());
    }

    #[test]
    fn a_ban_of_ones_own_network_is_pointed_out() {
        let warning = |text| hits_ours(&read_scope(text).unwrap());
        for text in ["10.1.2.3", "10.0.0.0/7", "127.0.0.1", "::1", "0.0.0.0/0", "fd00::1"] {
            assert!(warning(text).is_some(), "{text}");
        }
        for text in ["192.0.2.7", "192.0.2.0/24", "2001:db8::1", "user:p1"] {
            assert_eq!(warning(text), None, "{text}");
        }
    }
}
