//! The gate: what a connection meets, on a thread of its own, before it costs the node anything.
//!
//! Connections are accepted here and the head of their first request is read here. A handshake that is refused, a head
//! that never ends and a connection too many never reach the runtime that serves the sockets, so a flood of them makes
//! nobody else wait in its queues. Here a trusted proxy also says, by a PROXY header, whose connection it is.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::address::{is_private, is_trusted};
use super::connection::{Arrival, Connections, MAX_HEAD, Registered};
use super::front::{Admission, Front, Verdict};
use super::proxy::{self, ProxyHeader};
use crate::config::{Config, ProxyProtocol};
use crate::socket::{Conn, Waiting};

/// Connections on their way to the runtime that serves them.
const ARRIVALS: usize = 256;
/// Bytes that an ordinary head takes.
const HEAD: usize = 1024;
/// How long to wait when the system has no descriptor left: connections end meanwhile.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// What is demanded of a connection before its first request.
pub struct Gate {
    front: Front,
    connections: Arc<Connections>,
    arrivals: mpsc::Sender<Arrival>,
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
    hints: Hints,
}

impl Gate {
    /// The gate that the settings ask for, and those that it lets in.
    pub fn new(
        config: &Config,
        front: Front,
        connections: Arc<Connections>,
        waiting: Arc<Waiting>,
    ) -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, arrived) = mpsc::channel(ARRIVALS);
        let gate = Self {
            front,
            connections,
            arrivals,
            header_timeout: *config.header_timeout,
            trusted: config.trusted_proxies.to_vec(),
            proxy_protocol: config.proxy_protocol,
            waiting,
            allow: config.guard_allow.to_vec(),
            hints: Hints::default(),
        };
        (gate, arrived)
    }

    /// Accepts connections on a thread of its own until cancelled. Resolves when that has ended; an error when it could
    /// not begin.
    pub fn open(
        self,
        listener: std::net::TcpListener,
        stop: CancellationToken,
    ) -> io::Result<impl Future<Output = io::Result<()>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("gate".into()).spawn(move || {
            let result = runtime.block_on(async { Arc::new(self).accept(listener, stop).await });
            let _nobody_waits = end.send(result);
        })?;
        Ok(async move {
            ended
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the gate's thread has died")))
        })
    }

    async fn accept(self: Arc<Self>, listener: std::net::TcpListener, stop: CancellationToken) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return Ok(()),
            };
            match accepted {
                Ok((stream, peer)) => self.enter(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
    }

    /// Begins with a connection.
    fn enter(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let stream = Arc::new(stream);
        let conn = Arc::new(Conn::new(&stream, peer));
        if !self.has_place(peer, &conn) {
            // Closed without a word: an answer would cost more than the connection.
            return;
        }
        let registered = self.connections.add(conn);
        let gate = self.clone();
        tokio::spawn(async move {
            if let Err(error) = gate.attend(stream, registered).await {
                tracing::trace!(%peer, %error, "connection ended before its first request");
            }
        });
    }

    /// Gives a connection its place among those that have not said who they are yet. Proxies, which come for many, get
    /// theirs with the address of the client.
    fn has_place(&self, peer: SocketAddr, conn: &Arc<Conn>) -> bool {
        let ip = peer.ip().to_canonical();
        is_trusted(ip, &self.trusted) || self.allow.iter().any(|net| net.contains(&ip)) || self.waiting.enter(ip, conn)
    }

    async fn attend(&self, stream: Arc<TcpStream>, registered: Registered) -> io::Result<()> {
        let peer = registered.conn.peer;
        if is_trusted(peer.ip(), &self.trusted) {
            // Whose request it is, its head says; a proxy's connection lives on when that is refused.
            let begun = self.proxy_header(&stream).await;
            let (proxy, early) = begun.inspect_err(|error| self.hints.refused_proxy(peer, error))?;
            return self.pass(stream, registered, early, proxy, None).await;
        }
        let mut head = Vec::with_capacity(HEAD);
        let read = self.read_head(&stream, &mut head, &registered.conn);
        let verdict = tokio::time::timeout(self.header_timeout, read).await??;
        match verdict {
            Verdict::Refused(answer) => {
                // As much as the peer's window takes at once, which is all of it unless it is up to something.
                stream.writable().await?;
                let _sent = stream.try_write(&answer);
                let _gone = SockRef::from(&*stream).shutdown(Shutdown::Write);
                Ok(())
            }
            Verdict::Admitted(admission) => self.pass(stream, registered, head, None, Some(admission)).await,
            Verdict::NoHttp => {
                self.hints.no_http(peer);
                self.pass(stream, registered, head, None, None).await
            }
            Verdict::Incomplete | Verdict::NotJudged => self.pass(stream, registered, head, None, None).await,
        }
    }

    /// Reads until a head can be judged, or is too long to be.
    async fn read_head(&self, stream: &TcpStream, head: &mut Vec<u8>, conn: &Arc<Conn>) -> io::Result<Verdict> {
        loop {
            proxy::read_more(stream, head).await?;
            match self.front.judge(head, conn) {
                Verdict::Incomplete if head.len() < MAX_HEAD => {}
                verdict => return Ok(verdict),
            }
        }
    }

    /// The PROXY header of a trusted peer, and what was read behind it; an error when the connection must end.
    async fn proxy_header(&self, stream: &TcpStream) -> io::Result<(Option<ProxyHeader>, Vec<u8>)> {
        let (header, early) = tokio::time::timeout(self.header_timeout, proxy::read(stream)).await??;
        if header.is_none() && self.proxy_protocol == ProxyProtocol::Required {
            let missing = "there is none, and PROXY_PROTOCOL=required; let the proxy send it, or set `optional`";
            return Err(io::Error::new(io::ErrorKind::InvalidData, missing));
        }
        Ok((header, early))
    }

    /// Lets a connection in.
    async fn pass(
        &self,
        stream: Arc<TcpStream>,
        registered: Registered,
        early: Vec<u8>,
        proxy: Option<ProxyHeader>,
        admission: Option<Admission>,
    ) -> io::Result<()> {
        // A refused connection was answered by one packet; from here on it matters.
        let _best_effort = stream.set_nodelay(true);
        let arrival = Arrival {
            stream: registered.conn.detach(stream)?,
            registered,
            early: Bytes::from(early),
            proxy,
            admission,
        };
        // The node stops when nobody takes it.
        let _stopping = self.arrivals.send(arrival).await;
        Ok(())
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
