//! Our own accept loop: HTTP/1 only, a kill handle for every connection and a watchdog for writers that stand still.
//!
//! socketioxide has no public way to close a transport, and a client that stops reading is never cut by it. The stream
//! is therefore ours: it can be shut down from anywhere, and it knows since when a write has been blocked. Here a
//! trusted proxy also says, by a PROXY header, whose connection it is.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use dashmap::DashMap;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::{is_private, is_trusted};
use super::proxy::{self, ProxyHeader};
use crate::config::{Config, ProxyProtocol};
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
    /// What was read together with the PROXY header and belongs to HTTP.
    early: Bytes,
}

impl Drop for ConnStream {
    fn drop(&mut self) {
        self.connections.by_number.remove(&self.number);
        self.conn.settle();
    }
}

impl AsyncRead for ConnStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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

/// What the accept loop demands of a connection before its first request.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How long a PROXY header may take, and then a request head.
    header_timeout: Duration,
    /// The peers whose PROXY header is believed.
    trusted: Vec<IpNet>,
    /// Whether those must send one.
    proxy_protocol: ProxyProtocol,
    /// Those that have not said who they are yet.
    waiting: Arc<Waiting>,
    /// Peers whose connections need no place there.
    allow: Vec<IpNet>,
}

impl Terms {
    /// The terms that the settings ask for.
    pub fn new(config: &Config, waiting: Arc<Waiting>) -> Self {
        Self {
            header_timeout: *config.header_timeout,
            trusted: config.trusted_proxies.to_vec(),
            proxy_protocol: config.proxy_protocol,
            waiting,
            allow: config.guard_allow.to_vec(),
        }
    }

    /// Gives a connection its place among those that have not said who they are yet. Proxies, which come for many, get
    /// theirs with the address of the client.
    fn admit(&self, peer: SocketAddr, conn: &Arc<Conn>) -> bool {
        let ip = peer.ip().to_canonical();
        is_trusted(ip, &self.trusted) || self.allow.iter().any(|net| net.contains(&ip)) || self.waiting.enter(ip, conn)
    }

    /// The PROXY header of a trusted peer, and what was read behind it; an error when the connection must end.
    async fn begin(&self, stream: &TcpStream, peer: SocketAddr) -> io::Result<(Option<ProxyHeader>, Bytes)> {
        if !is_trusted(peer.ip(), &self.trusted) {
            return Ok((None, Bytes::new()));
        }
        let (header, early) = tokio::time::timeout(self.header_timeout, proxy::read(stream)).await??;
        if header.is_none() && self.proxy_protocol == ProxyProtocol::Required {
            let missing = "there is none, and PROXY_PROTOCOL=required; let the proxy send it, or set `optional`";
            return Err(io::Error::new(io::ErrorKind::InvalidData, missing));
        }
        Ok((header, early.into()))
    }
}

/// Accepts connections until cancelled; `service` gets each request with its connection in the extensions.
pub async fn accept<S, B>(
    listener: TcpListener,
    connections: Arc<Connections>,
    terms: Terms,
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
    let (terms, hints) = (Arc::new(terms), Arc::new(Hints::default()));
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
        if !terms.admit(peer, &conn) {
            // Closed without a word: an answer would cost more than the connection.
            continue;
        }
        let number = connections.add(conn.clone());
        let mut io = ConnStream {
            stream,
            conn: conn.clone(),
            connections: connections.clone(),
            number,
            early: Bytes::new(),
        };
        let (service, terms, hints) = (service.clone(), terms.clone(), hints.clone());
        tracker.spawn(async move {
            let proxy = match terms.begin(&io.stream, peer).await {
                Ok((proxy, early)) => {
                    io.early = early;
                    proxy
                }
                Err(error) => return hints.refused_proxy(peer, &error),
            };
            let service = WithConn {
                inner: service,
                conn,
                proxy,
            };
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(terms.header_timeout)
                .max_buf_size(MAX_HEAD);
            if let Err(error) = http.serve_connection(TokioIo::new(io), service).with_upgrades().await {
                tracing::trace!(%peer, %error, "connection ended");
                if error.is_parse() {
                    hints.no_http(peer);
                }
            }
        });
    }
}

/// What an operator is told once; each case may come with every connection.
#[derive(Debug, Default)]
struct Hints {
    refused_proxy: AtomicBool,
    no_http: AtomicBool,
}

impl Hints {
    fn refused_proxy(&self, peer: SocketAddr, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData && !self.refused_proxy.swap(true, Ordering::Relaxed) {
            tracing::warn!(%peer, %error, "connection of a trusted proxy closed: its PROXY header cannot be taken");
        } else {
            tracing::debug!(%peer, %error, "connection of a trusted proxy closed before its first request");
        }
    }

    fn no_http(&self, peer: SocketAddr) {
        if is_private(peer.ip()) && !self.no_http.swap(true, Ordering::Relaxed) {
            tracing::warn!(%peer, "a private peer does not speak HTTP here; if it is a proxy that sends PROXY headers, add it to TRUSTED_PROXIES");
        }
    }
}

/// Puts the connection, and its PROXY header, into the extensions of each of its requests.
struct WithConn<S> {
    inner: S,
    conn: Arc<Conn>,
    proxy: Option<ProxyHeader>,
}

impl<S: hyper::service::Service<http::Request<Incoming>>> hyper::service::Service<http::Request<Incoming>>
    for WithConn<S>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.conn.clone());
        if let Some(proxy) = self.proxy {
            request.extensions_mut().insert(proxy);
        }
        self.inner.call(request)
    }
}
