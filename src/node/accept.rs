//! Our own accept loop: HTTP/1 only, a kill handle for every connection and a watchdog for writers that stand still.
//!
//! socketioxide has no public way to close a transport, and a client that stops reading is never cut by it. The stream
//! is therefore ours: it can be shut down from anywhere, and it knows since when a write has been blocked.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use dashmap::DashMap;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::socket::{Conn, Waiting};

/// How often the watchdog looks at the connections.
const WATCHDOG_PERIOD: Duration = Duration::from_secs(1);
/// Largest request head: tokens travel in the payload, so this is generous.
const MAX_HEAD: usize = 16 * 1024;

/// The stream that hyper and the websocket see; leaves the registry when it is dropped, also after an upgrade.
struct ConnStream {
    stream: Arc<TcpStream>,
    conn: Arc<Conn>,
    connections: Arc<Connections>,
    number: u64,
}

impl Drop for ConnStream {
    fn drop(&mut self) {
        self.connections.by_number.remove(&self.number);
        self.conn.settle();
    }
}

impl AsyncRead for ConnStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for ConnStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => {
                    self.conn.note_write(true);
                    return Poll::Pending;
                }
                Poll::Ready(ready) => ready?,
            }
            match self.stream.try_write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.conn.note_write(false);
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that is gone already is no failure of ours.
        let _gone = SockRef::from(&*self.stream).shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

/// The connections of a node.
#[derive(Debug, Default)]
pub struct Connections {
    by_number: DashMap<u64, Arc<Conn>>,
    next: AtomicU64,
}

impl Connections {
    /// Every open connection at this moment.
    pub fn all(&self) -> Vec<Arc<Conn>> {
        self.by_number.iter().map(|entry| entry.value().clone()).collect()
    }

    fn add(&self, conn: Arc<Conn>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.by_number.insert(number, conn);
        number
    }

    /// Cuts connections whose write has been blocked for longer than `limit`, until cancelled.
    pub async fn watch(self: Arc<Self>, limit: Duration, stop: CancellationToken) {
        let mut period = tokio::time::interval(WATCHDOG_PERIOD);
        loop {
            tokio::select! {
                _ = period.tick() => {}
                () = stop.cancelled() => return,
            }
            for conn in self.by_number.iter() {
                if conn.blocked_for() > limit && !conn.is_killed() {
                    tracing::info!(peer = %conn.peer, "cut: the client has not read for {limit:?}");
                    conn.kill();
                }
            }
        }
    }
}

/// Limits of the accept loop.
#[derive(Debug, Clone)]
pub struct AcceptLimits {
    /// How long a request head may take.
    pub header_timeout: Duration,
    /// Those that have not said who they are yet.
    pub waiting: Arc<Waiting>,
    /// Peers whose connections need no place there: proxies, which come for many, and addresses that are allow-listed.
    pub exempt: Vec<IpNet>,
}

/// Accepts connections until cancelled; `service` gets each request with its connection in the extensions.
pub async fn accept<S, B>(
    listener: TcpListener,
    connections: Arc<Connections>,
    limits: AcceptLimits,
    service: S,
    tracker: TaskTracker,
    stop: CancellationToken,
) where
    S: hyper::service::Service<http::Request<Incoming>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly EMFILE: waiting lets connections end instead of spinning.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _best_effort = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let conn = Arc::new(Conn::new(&stream, peer));
        let ip = peer.ip().to_canonical();
        if !limits.exempt.iter().any(|net| net.contains(&ip)) && !limits.waiting.enter(ip, &conn) {
            // Closed without a word: an answer would cost more than the connection.
            continue;
        }
        let number = connections.add(conn.clone());
        let io = TokioIo::new(ConnStream {
            stream,
            conn: conn.clone(),
            connections: connections.clone(),
            number,
        });
        let service = WithConn {
            inner: service.clone(),
            conn,
        };
        let header_timeout = limits.header_timeout;
        tracker.spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(header_timeout)
                .max_buf_size(MAX_HEAD);
            if let Err(error) = http.serve_connection(io, service).with_upgrades().await {
                tracing::trace!(%peer, %error, "connection ended");
            }
        });
    }
}

/// Puts the connection into the extensions of each of its requests.
struct WithConn<S> {
    inner: S,
    conn: Arc<Conn>,
}

impl<S: hyper::service::Service<http::Request<Incoming>>> hyper::service::Service<http::Request<Incoming>>
    for WithConn<S>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.conn.clone());
        self.inner.call(request)
    }
}
