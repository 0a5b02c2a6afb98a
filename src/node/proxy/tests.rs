//! Headers as the specification has them, and headers nobody should send.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

/// A header of version 2 with this command, family and block.
pub fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE_2.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend(block);
    bytes
}

fn client(ip: &str) -> ProxyHeader {
    ProxyHeader::Client(ip.parse().unwrap())
}

fn is_broken(bytes: &[u8]) -> bool {
    matches!(parse(bytes), Parsed::Broken(_))
}

#[test]
fn version_1_names_the_source() {
    let cases: [(&str, ProxyHeader); 5] = [
        ("PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n", client("203.0.113.9")),
        (
            "PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n",
            client("2001:db8::9"),
        ),
        ("PROXY UNKNOWN\r\n", ProxyHeader::Unnamed),
        ("PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n", ProxyHeader::Unnamed),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            client("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ),
    ];
    for (line, header) in cases {
        assert_eq!(parse(line.as_bytes()), Parsed::Header(header, line.len()), "{line}");
        let request = format!("{line}GET / HTTP/1.1\r\n\r\n");
        assert_eq!(parse(request.as_bytes()), Parsed::Header(header, line.len()), "{line}");
    }
}

#[test]
fn version_2_names_the_source_of_a_tcp_client_and_nobody_else() {
    let v4 = [203, 0, 113, 9, 192, 0, 2, 1, 0xdc, 4, 1, 0xbb];
    let mut v6 = [0; 36];
    v6[..2].copy_from_slice(&[0x20, 1]);
    v6[15] = 9;
    let with_more = [&v4[..], &[4, 0, 1, 0xff]].concat();
    let cases: [(Vec<u8>, ProxyHeader); 7] = [
        (version_2(0x21, 0x11, &v4), client("203.0.113.9")),
        (version_2(0x21, 0x11, &with_more), client("203.0.113.9")),
        (version_2(0x21, 0x21, &v6), client("2001::9")),
        (version_2(0x20, 0x00, &[]), ProxyHeader::Unnamed),
        (version_2(0x20, 0x11, &v4), ProxyHeader::Unnamed),
        (version_2(0x21, 0x00, &[1, 2, 3]), ProxyHeader::Unnamed),
        (version_2(0x21, 0x31, &[0; 216]), ProxyHeader::Unnamed),
    ];
    for (bytes, header) in cases {
        assert_eq!(parse(&bytes), Parsed::Header(header, bytes.len()), "{bytes:x?}");
    }
}

#[test]
fn broken_headers_are_told_from_requests() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 203.0.113.9 192.0.2.1 1 2\r\n",
        "PROXY TCP4 2001:db8::9 192.0.2.1 1 2\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 1\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 1 65536\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 1 2 3\r\n",
        "PROXY TCP4  203.0.113.9 192.0.2.1 1 2\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 1 2\n",
        "PROXY UNKNOWN\n",
    ] {
        assert!(is_broken(line.as_bytes()), "{line:?}");
    }
    assert!(is_broken(&[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat()));
    assert!(is_broken(b"PROXY TCP4 \xff\r\n"));
    for (command, family, block) in [
        (0x11, 0x11, 12),
        (0x22, 0x11, 12),
        (0x21, 0x11, 11),
        (0x21, 0x21, 35),
        (0x21, 0x12, 12),
        (0x21, 0x41, 12),
        (0x20, 0x00, MAX_HEADER),
    ] {
        let bytes = version_2(command, family, &vec![0; block]);
        assert!(is_broken(&bytes), "{command:x} {family:x} {block}");
    }
    for request in [
        "POST / HTTP/1.1",
        "PUT / HTTP/1.1",
        "PROPFIND / HTTP/1.1",
        "GET",
        "\r\n\r\nGET",
        "\0",
    ] {
        assert_eq!(parse(request.as_bytes()), Parsed::Absent, "{request:?}");
    }
}

#[tokio::test]
async fn header_that_comes_byte_by_byte_is_read_and_the_request_behind_it_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (receiver, _) = listener.accept().await.unwrap();
    sender.set_nodelay(true).unwrap();
    let reader = tokio::spawn(async move { read(&receiver).await });
    for byte in b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r" {
        sender.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    sender.write_all(b"\nGET /").await.unwrap();
    let (header, rest) = reader.await.unwrap().unwrap();
    assert_eq!((header, rest.as_slice()), (Some(client("203.0.113.9")), &b"GET /"[..]));
}
