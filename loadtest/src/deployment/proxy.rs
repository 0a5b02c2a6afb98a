//! A TCP proxy before Redis that can delay, cut and black-hole what one node sends and receives.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They pass after a pause.
    Delay(Duration),
    /// Connections are closed, and new ones too.
    Cut,
    /// Connections stay open and nothing passes; what was sent arrives after the healing, as TCP would resend it.
    BlackHole,
}

/// A running proxy; dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    mode: watch::Sender<Mode>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and passes everything to `target` on this machine.
    pub async fn start(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (mode, watched) = watch::channel(Mode::Pass);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, watched));
        Ok(Self {
            port,
            mode,
            _tasks: tasks,
        })
    }

    /// Changes what happens to the bytes, those under way included.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, target: u16, mode: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(carry(stream, target, mode.clone())); }
                // Out of descriptors: trying on at once would not help.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(near: TcpStream, target: u16, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow_and_update() == Mode::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let cut = async {
        // An error means that the proxy is gone.
        let _ = mode.clone().wait_for(|mode| *mode == Mode::Cut).await;
    };
    tokio::select! {
        _ = pump(near_in, far_out, mode.clone()) => {}
        _ = pump(far_in, near_out, mode.clone()) => {}
        () = cut => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        loop {
            let now = *mode.borrow_and_update();
            match now {
                Mode::Pass | Mode::Cut => break,
                Mode::Delay(pause) => {
                    sleep(pause).await;
                    break;
                }
                Mode::BlackHole => mode.changed().await.map_err(io::Error::other)?,
            }
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    async fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn a_black_hole_holds_back_and_a_cut_closes() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        let mut one = [0];
        stream.write_all(b"a").await.unwrap();
        stream.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"a");

        proxy.set(Mode::BlackHole);
        stream.write_all(b"b").await.unwrap();
        let held = timeout(Duration::from_millis(200), stream.read_exact(&mut one)).await;
        assert!(held.is_err());
        proxy.set(Mode::Pass);
        stream.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"b");

        proxy.set(Mode::Cut);
        let end = timeout(Duration::from_secs(5), stream.read(&mut one)).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
    }
}
