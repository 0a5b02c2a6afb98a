//! Whose connection this is: the peer, or what a declared proxy says.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::model::ClientAddress;

/// Decides the client's address: the peer, or the rightmost hop of `X-Forwarded-For` that is not a trusted proxy.
///
/// Each proxy appends the address it saw, so only the hops written by trusted proxies can be believed; anything left of
/// the first untrusted one is the client's own invention.
pub fn client_address(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> ClientAddress {
    let peer = canonical(peer.ip());
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if !is_trusted(peer) {
        let undeclared_proxy = trusted.is_empty() && is_private(peer) && headers.contains_key("x-forwarded-for");
        return ClientAddress {
            ip: peer,
            undeclared_proxy,
        };
    }
    let mut ip = peer;
    // Lossy, not skipped: a byte that is no text must not hide the hops that proxies appended to the same line.
    let lines = headers.get_all("x-forwarded-for").iter();
    let lines: Vec<_> = lines.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        // What is not an address was not written by a proxy of ours: the last believed hop is the client.
        let Some(hop) = parse_hop(hop.trim()) else { break };
        ip = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    ClientAddress {
        ip,
        undeclared_proxy: false,
    }
}

/// An address with or without a port, IPv6 with or without brackets.
fn parse_hop(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(canonical(ip));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(canonical(address.ip()));
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(canonical)
}

/// IPv4 addresses that come as IPv6 on a dual-stack listener are IPv4.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, forwarded: &[&str], trusted: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let found = client_address(peer.parse().unwrap(), &headers, &trusted);
        (found.ip.to_string(), found.undeclared_proxy)
    }

    #[test]
    fn without_trusted_proxies_the_peer_counts() {
        assert_eq!(
            address("203.0.113.9:1", &["1.2.3.4"], &[]),
            ("203.0.113.9".into(), false)
        );
        assert_eq!(address("10.0.0.9:1", &["1.2.3.4"], &[]), ("10.0.0.9".into(), true));
        assert_eq!(address("10.0.0.9:1", &[], &[]), ("10.0.0.9".into(), false));
        assert_eq!(
            address("[::ffff:203.0.113.9]:1", &[], &[]),
            ("203.0.113.9".into(), false)
        );
    }

    #[test]
    fn a_client_cannot_write_its_own_address() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(
            address("10.0.0.1:1", &["6.6.6.6, 203.0.113.9"], trusted).0,
            "203.0.113.9"
        );
        assert_eq!(
            address("10.0.0.1:1", &["6.6.6.6", "203.0.113.9, 10.0.0.2"], trusted).0,
            "203.0.113.9"
        );
        assert_eq!(address("10.0.0.1:1", &["203.0.113.9, garbage"], trusted).0, "10.0.0.1");
        assert_eq!(
            address("203.0.113.7:1", &["6.6.6.6"], trusted),
            ("203.0.113.7".into(), false)
        );
    }

    #[test]
    fn a_byte_that_is_no_text_does_not_hide_the_hops_behind_it() {
        let mut headers = HeaderMap::new();
        let line = http::HeaderValue::from_bytes(b"\xff, 203.0.113.9").unwrap();
        headers.append("x-forwarded-for", line);
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let found = client_address("10.0.0.1:1".parse().unwrap(), &headers, &trusted);
        assert_eq!(found.ip.to_string(), "203.0.113.9");
    }

    #[test]
    fn hops_may_have_ports_and_brackets() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(address("10.0.0.1:1", &["203.0.113.9:4711"], trusted).0, "203.0.113.9");
        assert_eq!(address("10.0.0.1:1", &["[2001:db8::1]:4711"], trusted).0, "2001:db8::1");
        assert_eq!(address("10.0.0.1:1", &["2001:db8::1"], trusted).0, "2001:db8::1");
        assert_eq!(address("10.0.0.1:1", &["10.0.0.3, 10.0.0.2"], trusted).0, "10.0.0.3");
    }
}
