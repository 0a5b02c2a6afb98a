use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::socket::frame::push_text;

const SENDERS: usize = 4;
const FRAMES: usize = 2000;

fn frame(text: &str) -> Bytes {
    let mut bytes = Vec::new();
    push_text(&mut bytes, &[text]);
    bytes.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_sends_at_once_loses_nothing_and_keeps_its_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, address) = listener.accept().await.unwrap();
    let (stream, tracker) = (Arc::new(stream), TaskTracker::new());
    let conn = Arc::new(Conn::new(&stream, address));
    conn.expect_websocket();
    let head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    conn.write_engine(&stream, head, &tracker).unwrap();
    assert!(conn.direct().line.hold_behind(Sight::Connected));
    conn.write_engine(&stream, &frame("40"), &tracker).unwrap();

    for sender in 0..SENDERS {
        let (conn, tracker) = (conn.clone(), tracker.clone());
        tokio::spawn(async move {
            for number in 0..FRAMES {
                while conn.send(&frame(&format!("{sender} {number}")), &tracker) == Err(NotSent::Full) {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let mut skipped = vec![0; head.len() + 4];
    peer.read_exact(&mut skipped).await.unwrap();
    let mut next = [0; SENDERS];
    while next.iter().sum::<usize>() < SENDERS * FRAMES {
        assert_eq!(peer.read_u8().await.unwrap(), 0x81, "a frame begins where another ends");
        let mut text = vec![0; peer.read_u8().await.unwrap().into()];
        peer.read_exact(&mut text).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let (sender, number) = text.split_once(' ').unwrap();
        let next = &mut next[sender.parse::<usize>().unwrap()];
        assert_eq!(number.parse::<usize>().unwrap(), *next);
        *next += 1;
    }
}
