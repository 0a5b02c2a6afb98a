//! Whose connection this is: the peer, or what a declared proxy says.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use super::proxy::ProxyHeader;
use crate::model::ClientAddress;

/// Decides the client's address: what the PROXY header of a trusted proxy names, else the peer; and where that is a
/// trusted proxy itself, the rightmost hop of `X-Forwarded-For` that is none.
///
/// Each proxy appends the address it saw, so only the hops written by trusted proxies can be believed; anything left of
/// the first untrusted one is the client's own invention. A PROXY header that names nobody ends the search at the peer:
/// such a proxy forwards bytes, so every hop would be the client's invention.
pub fn client_address(
    peer: IpAddr,
    proxy: Option<ProxyHeader>,
    headers: &HeaderMap,
    trusted: &[IpNet],
) -> ClientAddress {
    let peer = canonical(peer);
    let mut ip = match proxy {
        Some(ProxyHeader::Client(ip)) => canonical(ip),
        Some(ProxyHeader::Unnamed) | None => peer,
    };
    if proxy == Some(ProxyHeader::Unnamed) || !is_trusted(ip, trusted) {
        let undeclared_proxy = trusted.is_empty() && is_private(peer) && headers.contains_key("x-forwarded-for");
        return ClientAddress { ip, undeclared_proxy };
    }
    // Lossy, not skipped: a byte that is no text must not hide the hops that proxies appended to the same line.
    let lines = headers.get_all("x-forwarded-for").iter();
    let lines: Vec<_> = lines.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        // What is not an address was not written by a proxy of ours: the last believed hop is the client.
        let Some(hop) = parse_hop(hop.trim()) else { break };
        ip = hop;
        if !is_trusted(hop, trusted) {
            break;
        }
    }
    ClientAddress {
        ip,
        undeclared_proxy: false,
    }
}

/// Whether a peer is a declared proxy.
pub fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = canonical(ip);
    trusted.iter().any(|net| net.contains(&ip))
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

/// Whether the address is of a private network or of this machine.
pub fn is_private(ip: IpAddr) -> bool {
    match canonical(ip) {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, forwarded: &[&str], trusted: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let peer: SocketAddr = peer.parse().unwrap();
        let found = client_address(peer.ip(), None, &headers, &trusted);
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
        let found = client_address("10.0.0.1".parse().unwrap(), None, &headers, &trusted);
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

    #[test]
    fn a_proxy_header_counts_first_and_hops_go_on_from_a_trusted_client_of_it() {
        let address = |header: ProxyHeader, forwarded: &str| {
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-for", forwarded.parse().unwrap());
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            let found = client_address("10.0.0.1".parse().unwrap(), Some(header), &headers, &trusted);
            found.ip.to_string()
        };
        let client = |ip: &str| ProxyHeader::Client(ip.parse().unwrap());
        assert_eq!(address(client("203.0.113.9"), "6.6.6.6"), "203.0.113.9");
        assert_eq!(address(client("::ffff:203.0.113.9"), "6.6.6.6"), "203.0.113.9");
        assert_eq!(address(client("10.0.0.2"), "6.6.6.6, 203.0.113.9"), "203.0.113.9");
        assert_eq!(address(client("10.0.0.2"), "garbage"), "10.0.0.2");
        assert_eq!(address(ProxyHeader::Unnamed, "203.0.113.9"), "10.0.0.1");
    }
}
