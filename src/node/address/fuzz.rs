//! Whatever a client writes into `X-Forwarded-For`: the rightmost hop that is no trusted proxy counts.

use bolero::{Driver, TypeGenerator};
use http::HeaderValue;

use super::*;
use crate::fuzz::pick;

/// The proxies of these tests.
const TRUSTED: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];
/// What proxies and liars write.
const HOPS: &[&str] = &[
    "10.0.0.2",
    "fd00::2",
    "[fd00::2]:443",
    "10.0.0.3:80",
    "::ffff:10.0.0.4",
    "203.0.113.66",
    "2001:db8::66",
    "unknown",
    "",
    "_x",
    "1.2.3",
    "10.0.0.256",
    "[10.0.0.1]",
    "[::1",
    "fe80::1%eth0",
    "\u{fe0e}",
    "10.0.0.2 10.0.0.3",
];

/// A value of the header as a client may have written it.
#[derive(Debug, Clone)]
struct Line(HeaderValue);

impl TypeGenerator for Line {
    fn generate<D: Driver>(driver: &mut D) -> Option<Self> {
        let mut bytes = Vec::new();
        for _ in 0..driver.produce::<u8>()? % 6 {
            match driver.produce::<u8>()? % 4 {
                0 => bytes.extend(
                    driver
                        .produce::<Vec<u8>>()?
                        .iter()
                        .filter(|byte| **byte >= b' ' && **byte != 127),
                ),
                _ => bytes.extend(pick(HOPS, driver)?.as_bytes()),
            }
            bytes.extend(pick(&[",", ", ", " ,\t", ";"], driver)?.as_bytes());
        }
        HeaderValue::from_bytes(&bytes).ok().map(Self)
    }
}

/// An address and how somebody may write it.
fn written(ip: IpAddr, form: u8) -> String {
    match form % 4 {
        0 => SocketAddr::new(ip, 4711).to_string(),
        1 if ip.is_ipv6() => format!("[{ip}]"),
        _ => format!(" {ip}\t"),
    }
}

fn count(peer: IpAddr, proxy: Option<ProxyHeader>, lines: &[HeaderValue]) -> ClientAddress {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("x-forwarded-for", line.clone());
    }
    client_address(peer, proxy, &headers, &TRUSTED.map(|net| net.parse().unwrap()))
}

#[test]
fn what_stands_left_of_an_untrusted_hop_never_counts() {
    type Case = (Vec<Line>, IpAddr, u8, Vec<u8>, bool);
    bolero::check!()
        .with_type::<Case>()
        .for_each(|(lies, client, form, proxies, joined)| {
            let trusted = TRUSTED.map(|net| net.parse().unwrap());
            if is_trusted(*client, &trusted) {
                return;
            }
            // As proxies append: the client's address, then those of the proxies behind the first.
            let honest: Vec<String> = std::iter::once(written(*client, *form))
                .chain(
                    proxies
                        .iter()
                        .take(4)
                        .map(|number| written(IpAddr::from([10, 0, 0, *number]), *number)),
                )
                .collect();
            let honest = honest.join(",");
            let mut lines: Vec<HeaderValue> = lies.iter().take(4).map(|Line(value)| value.clone()).collect();
            match lines.pop() {
                Some(last) if *joined => {
                    lines.push(HeaderValue::from_bytes(&[last.as_bytes(), b", ", honest.as_bytes()].concat()).unwrap());
                }
                last => lines.extend(last.into_iter().chain([HeaderValue::from_str(&honest).unwrap()])),
            }
            let right = ClientAddress {
                ip: canonical(*client),
                undeclared_proxy: false,
            };
            assert_eq!(count("10.0.0.1".parse().unwrap(), None, &lines), right, "{lines:?}");
            let behind = Some(ProxyHeader::Client("fd00::7".parse().unwrap()));
            assert_eq!(count("10.0.0.1".parse().unwrap(), behind, &lines), right, "{lines:?}");
        });
}

#[test]
fn without_a_trusted_proxy_hops_never_count() {
    bolero::check!()
        .with_type::<(Vec<Line>, IpAddr, IpAddr)>()
        .for_each(|(lies, peer, client)| {
            let trusted = TRUSTED.map(|net| net.parse().unwrap());
            let lines: Vec<HeaderValue> = lies.iter().take(4).map(|Line(value)| value.clone()).collect();
            if !is_trusted(*peer, &trusted) {
                assert_eq!(count(*peer, None, &lines).ip, canonical(*peer));
            }
            if !is_trusted(*client, &trusted) {
                let proxy = Some(ProxyHeader::Client(*client));
                assert_eq!(count("10.0.0.1".parse().unwrap(), proxy, &lines).ip, canonical(*client));
            }
            assert_eq!(count(*peer, Some(ProxyHeader::Unnamed), &lines).ip, canonical(*peer));
        });
}

#[test]
fn what_counts_is_the_peer_or_a_hop_that_only_trusted_ones_follow() {
    bolero::check!().with_type::<Vec<Line>>().for_each(|lies| {
        let trusted = TRUSTED.map(|net| net.parse().unwrap());
        let lines: Vec<HeaderValue> = lies.iter().take(4).map(|Line(value)| value.clone()).collect();
        let peer = "10.0.0.1".parse().unwrap();
        let found = count(peer, None, &lines).ip;
        let text = lines
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
        let hops: Vec<String> = text
            .collect::<Vec<_>>()
            .join(",")
            .split(',')
            .map(|hop| hop.trim().to_owned())
            .collect();
        let believed = hops.iter().rev().map_while(|hop| parse_hop(hop));
        let mut right = peer;
        for hop in believed {
            right = hop;
            if !is_trusted(hop, &trusted) {
                break;
            }
        }
        assert_eq!(found, right, "{hops:?}");
    });
}
