//! Whatever bytes a connection begins with: never more is taken than there is, and it does not matter in which pieces.

use std::net::SocketAddr;

use bolero::{Driver, TypeGenerator};

use super::tests::version_2;
use super::*;
use crate::fuzz::pick;

/// A header, whole or with a byte changed, and what follows it.
#[derive(Debug, Clone)]
struct Beginning(Vec<u8>);

impl TypeGenerator for Beginning {
    fn generate<D: Driver>(driver: &mut D) -> Option<Self> {
        let mut bytes = match driver.produce::<u8>()? % 5 {
            0 => driver.produce::<Vec<u8>>()?,
            1 => {
                let line = [
                    "TCP4 1.2.3.4 5.6.7.8 1 2",
                    "TCP6 ::1 ::2 1 2",
                    "UNKNOWN",
                    "UNKNOWN x",
                    "TCP4 ::1 ::2 1 2",
                ];
                format!("PROXY {}\r\n", pick(&line, driver)?).into_bytes()
            }
            2 => [&b"PROXY "[..], &driver.produce::<Vec<u8>>()?].concat(),
            _ => {
                let block: Vec<u8> = driver.produce()?;
                let length = *pick(&[0, 11, 12, 13, 35, 36, 64, 216, MAX_HEADER], driver)?;
                let block: Vec<u8> = block.into_iter().chain(std::iter::repeat(7)).take(length).collect();
                let (command, family) = (
                    pick(&[0x20, 0x21, 0x11], driver)?,
                    pick(&[0, 0x11, 0x21, 0x31], driver)?,
                );
                version_2(*command, *family, &block)
            }
        };
        let at = usize::from(driver.produce::<u16>()?) % bytes.len().max(1);
        match driver.produce::<u8>()? % 4 {
            0 if !bytes.is_empty() => bytes[at] = driver.produce()?,
            1 => bytes.truncate(at),
            _ => bytes.extend(driver.produce::<Vec<u8>>()?),
        }
        Some(Self(bytes))
    }
}

#[test]
fn the_pieces_in_which_a_header_comes_do_not_matter() {
    bolero::check!().with_type::<Beginning>().for_each(|Beginning(bytes)| {
        let whole = parse(bytes);
        match whole {
            Parsed::Header(_, length) => assert!(length <= bytes.len() && length <= MAX_HEADER),
            Parsed::Incomplete => assert!(bytes.len() < MAX_HEADER),
            Parsed::Absent | Parsed::Broken(_) => {}
        }
        // Once decided, the decision stands whatever comes behind; before, it is not taken.
        let mut decided = Parsed::Incomplete;
        for end in 0..=bytes.len().min(300) {
            let now = parse(&bytes[..end]);
            assert!(
                decided == Parsed::Incomplete || now == decided,
                "{end}: {decided:?}, then {now:?}"
            );
            decided = now;
        }
        assert!(
            decided == Parsed::Incomplete || decided == whole,
            "{decided:?}, {whole:?}"
        );
    });
}

#[test]
fn a_header_reads_as_it_was_written() {
    type Case = (bool, SocketAddr, u16, Vec<u8>, Vec<u8>);
    bolero::check!()
        .with_type::<Case>()
        .for_each(|(first, source, port, more, behind)| {
            let destination = SocketAddr::new(source.ip(), *port);
            let mut bytes = if *first {
                let (family, from, to) = (if source.is_ipv4() { 4 } else { 6 }, source.ip(), destination.ip());
                format!("PROXY TCP{family} {from} {to} {} {port}\r\n", source.port()).into_bytes()
            } else {
                let (family, octets) = match source.ip() {
                    IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
                    IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
                };
                let ports = [source.port().to_be_bytes(), port.to_be_bytes()].concat();
                let more = &more[..more.len().min(1000)];
                version_2(0x21, family, &[&octets, &octets, &ports[..], more].concat())
            };
            let length = bytes.len();
            bytes.extend(behind);
            assert_eq!(parse(&bytes), Parsed::Header(ProxyHeader::Client(source.ip()), length));
        });
}
