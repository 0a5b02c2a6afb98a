//! The connections of a node: HTTP/1 only, a kill handle for each and a watchdog for writers that stand still.
//!
//! socketioxide has no public way to close a transport, and a client that stops reading is never cut by it. The stream
//! is therefore ours: it can be shut down from anywhere, and it knows since when a write has been blocked.

use std::io::{self, Read as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use dashmap::DashMap;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::front::Admission;
use super::proxy::ProxyHeader;
use crate::socket::Conn;

/// How often the watchdog looks at the connections.
const WATCHDOG_PERIOD: Duration = Duration::from_secs(1);
/// Bytes that one read asks for: most events are smaller.
const READ_AHEAD: usize = 2048;
/// Largest request head: tokens travel in the payload, so this is generous.
pub const MAX_HEAD: usize = 16 * 1024;

/// The stream that hyper and the websocket see; with its end, also after an upgrade, the connection leaves the registry.
struct ConnStream {
    stream: Arc<TcpStream>,
    registered: Registered,
    /// What was read and not asked for yet.
    early: Bytes,
    tracker: TaskTracker,
}

impl AsyncRead for ConnStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let this = self.get_mut();
            let length = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..length]);
            this.early.advance(length);
            if this.early.is_empty() {
                // An empty slice would keep its buffer for as long as the connection lives.
                this.early = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }
}

impl ConnStream {
    /// Reads what is there. A websocket reads into a small buffer, because it keeps it: more is asked for, and what does not
    /// fit is kept until it is asked for again. When less came than was asked for there is no more, and the kernel need not be
    /// asked again before it has news.
    fn read(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut ahead = [0; READ_AHEAD];
        let is_small = buf.remaining() < READ_AHEAD;
        let into = if is_small {
            &mut ahead[..]
        } else {
            buf.initialize_unfilled()
        };
        let wanted = into.len();
        let mut read = None;
        let tried = self.stream.try_io(Interest::READABLE, || {
            let length = (&*SockRef::from(&*self.stream)).read(into)?;
            read = Some(length);
            if 0 < length && length < wanted {
                // Noted under the event that was seen before the read, so that a later one is not lost.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        let Some(length) = read else { return tried };
        if is_small {
            let fits = length.min(buf.remaining());
            buf.put_slice(&ahead[..fits]);
            self.early = Bytes::copy_from_slice(&ahead[fits..length]);
        } else {
            buf.advance(length);
        }
        Ok(())
    }
}

impl AsyncWrite for ConnStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.registered.conn.write_engine(&self.stream, buf, &self.tracker) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
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

    /// Adds a connection until what is returned is dropped.
    pub fn add(self: &Arc<Self>, conn: Arc<Conn>) -> Registered {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.by_number.insert(number, conn.clone());
        Registered {
            connections: self.clone(),
            number,
            conn,
        }
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

/// A connection's entry in the registry.
#[derive(Debug)]
pub struct Registered {
    connections: Arc<Connections>,
    number: u64,
    /// The connection.
    pub conn: Arc<Conn>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.by_number.remove(&self.number);
        self.conn.end();
    }
}

/// A connection that the gate lets in.
#[derive(Debug)]
pub struct Arrival {
    /// The connection itself, on no runtime.
    pub stream: std::net::TcpStream,
    /// Its entry.
    pub registered: Registered,
    /// What was read of it and belongs to HTTP.
    pub early: Bytes,
    /// For whom a trusted proxy says that it comes.
    pub proxy: Option<ProxyHeader>,
    /// What was decided of its first request already.
    pub admission: Option<Admission>,
}

/// Serves arrivals until there are no more; `service` gets each request with its connection in the extensions.
pub async fn serve<S, B>(
    mut arrivals: tokio::sync::mpsc::Receiver<Arrival>,
    header_timeout: Duration,
    service: S,
    tracker: TaskTracker,
) where
    S: hyper::service::Service<http::Request<Incoming>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    while let Some(arrival) = arrivals.recv().await {
        let Arrival {
            stream,
            registered,
            early,
            proxy,
            admission,
        } = arrival;
        let conn = registered.conn.clone();
        let stream = match conn.attach(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(peer = %conn.peer, %error, "connection ended on its way in");
                continue;
            }
        };
        let io = ConnStream {
            stream,
            registered,
            early,
            tracker: tracker.clone(),
        };
        let service = WithConn {
            inner: service.clone(),
            conn: conn.clone(),
            proxy,
            admission: Mutex::new(admission),
        };
        tracker.spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(header_timeout)
                .max_buf_size(MAX_HEAD);
            if let Err(error) = http.serve_connection(TokioIo::new(io), service).with_upgrades().await {
                tracing::trace!(peer = %conn.peer, %error, "connection ended");
            }
        });
    }
}

/// Puts what is known of the connection into the extensions of each of its requests.
struct WithConn<S> {
    inner: S,
    conn: Arc<Conn>,
    proxy: Option<ProxyHeader>,
    /// Of the first request.
    admission: Mutex<Option<Admission>>,
}

impl<S: hyper::service::Service<http::Request<Incoming>>> hyper::service::Service<http::Request<Incoming>>
    for WithConn<S>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        let extensions = request.extensions_mut();
        extensions.insert(self.conn.clone());
        if let Some(proxy) = self.proxy {
            extensions.insert(proxy);
        }
        let admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(admission) = admission {
            extensions.insert(admission);
        }
        self.inner.call(request)
    }
}
