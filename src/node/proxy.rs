//! The PROXY protocol, versions 1 and 2: whom a proxy that forwards bytes speaks for.
//!
//! Of everything a header may tell only the source address matters here, so this reads nothing else. Whether a peer is
//! believed at all is decided before: from anybody else not a byte is read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use tokio::net::TcpStream;

/// How a header of version 1 begins.
const SIGNATURE_1: &[u8] = b"PROXY ";
/// How a header of version 2 begins.
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1 with its end, by the specification.
const MAX_LINE: usize = 107;
/// What precedes the addresses in version 2: signature, version and command, family, length.
const PREAMBLE_2: usize = 16;
/// The longest header of version 2 taken. Proxies add some hundred bytes about the TLS session, at most a certificate's
/// names; the specification allows 64 KiB.
const MAX_HEADER: usize = 4096;

/// For whom a connection that begins with a header was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// For the client at this address.
    Client(IpAddr),
    /// For the proxy itself, as health checks are, or for somebody whose address it does not know.
    Unnamed,
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// A header that has not arrived in full, or nothing yet.
    Incomplete,
    /// No header.
    Absent,
    /// A header and how many bytes it takes.
    Header(ProxyHeader, usize),
    /// A header that breaks the protocol.
    Broken(&'static str),
}

/// Reads the header that a connection may begin with, and what came behind it in the same packets.
///
/// Takes as long as the peer takes: the caller bounds it.
pub async fn read(stream: &TcpStream) -> io::Result<(Option<ProxyHeader>, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(MAX_LINE);
    loop {
        match parse(&bytes) {
            Parsed::Incomplete => {}
            Parsed::Absent => return Ok((None, bytes)),
            Parsed::Header(header, length) => return Ok((Some(header), bytes.split_off(length))),
            Parsed::Broken(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        }
        read_more(stream, &mut bytes).await?;
    }
}

/// Appends what arrives next; an error at the end of the stream.
pub async fn read_more(stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn parse(bytes: &[u8]) -> Parsed {
    if bytes.starts_with(SIGNATURE_1) {
        parse_1(bytes)
    } else if bytes.starts_with(SIGNATURE_2) {
        parse_2(bytes)
    } else if SIGNATURE_1.starts_with(bytes) || SIGNATURE_2.starts_with(bytes) {
        Parsed::Incomplete
    } else {
        Parsed::Absent
    }
}

fn parse_1(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_LINE {
            Parsed::Incomplete
        } else {
            Parsed::Broken("the line of version 1 does not end")
        };
    };
    match std::str::from_utf8(&bytes[SIGNATURE_1.len()..end])
        .ok()
        .and_then(read_line)
    {
        Some(header) => Parsed::Header(header, end + 1),
        None => Parsed::Broken("the line of version 1 is malformed"),
    }
}

/// What is between the signature and the line feed.
fn read_line(line: &str) -> Option<ProxyHeader> {
    let mut words = line.strip_suffix('\r')?.split(' ');
    let source = match words.next()? {
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Some(ProxyHeader::Unnamed),
        "TCP4" => read_addresses::<Ipv4Addr>(&mut words)?,
        "TCP6" => read_addresses::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    words.next().is_none().then_some(ProxyHeader::Client(source))
}

/// The source of two addresses and two ports; all four must be well-formed.
fn read_addresses<'a, Ip: FromStr + Into<IpAddr>>(words: &mut impl Iterator<Item = &'a str>) -> Option<IpAddr> {
    let mut address = || words.next()?.parse::<Ip>().ok();
    let (source, _destination) = (address()?, address()?);
    let mut port = || words.next()?.parse::<u16>().ok();
    let (_source_port, _destination_port) = (port()?, port()?);
    Some(source.into())
}

fn parse_2(bytes: &[u8]) -> Parsed {
    let Some((preamble, rest)) = bytes.split_first_chunk::<PREAMBLE_2>() else {
        return Parsed::Incomplete;
    };
    let [.., command, family, high, low] = *preamble;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if PREAMBLE_2 + length > MAX_HEADER {
        return Parsed::Broken("the header of version 2 is longer than 4096 bytes");
    }
    let Some(rest) = rest.get(..length) else {
        return Parsed::Incomplete;
    };
    // Each block of addresses: source, destination, two ports; what follows it is of no interest.
    let source = match (command, family) {
        // LOCAL: family and addresses are to be ignored. PROXY for an unknown or Unix client: there is no address.
        (0x20, _) | (0x21, 0x00 | 0x31) => Some(ProxyHeader::Unnamed),
        (0x21, 0x11) => rest
            .first_chunk::<12>()
            .map(|[a, b, c, d, ..]| ProxyHeader::Client(Ipv4Addr::new(*a, *b, *c, *d).into())),
        (0x21, 0x21) => rest
            .first_chunk::<36>()
            .and_then(|block| block.first_chunk::<16>())
            .map(|source| ProxyHeader::Client(Ipv6Addr::from(*source).into())),
        _ => None,
    };
    match source {
        Some(header) => Parsed::Header(header, PREAMBLE_2 + length),
        None => Parsed::Broken("the header of version 2 is malformed"),
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
