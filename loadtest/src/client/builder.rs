//! How a client connects.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::address::Address;
use super::driver::{Driver, Link};
use super::event::Event;
use super::inner::{Inner, OUTBOX, Out};
use super::polling::Polling;
use super::{Client, ConnectError, Transport, websocket};
use crate::packet::{FrameWriter, encode_connect};

/// Settings of a connection; cloneable, so that one builder serves every reconnect.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) url: String,
    pub(super) auth: Option<Value>,
    pub(super) transport: Transport,
    pub(super) headers: Vec<(String, String)>,
    pub(super) local_address: Option<IpAddr>,
    pub(super) receive_buffer: Option<u32>,
    on_connect: Vec<(String, Value)>,
    timeout: Duration,
    tag: u64,
    stream: Option<mpsc::Sender<Event>>,
}

impl Builder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            auth: None,
            transport: Transport::Websocket,
            headers: Vec::new(),
            local_address: None,
            receive_buffer: None,
            on_connect: Vec::new(),
            // Longer than any healthy answer on two busy cores, short enough for a failing test.
            timeout: Duration::from_secs(5),
            tag: 0,
            stream: None,
        }
    }

    /// The CONNECT payload; without it none is sent.
    pub fn auth(mut self, auth: Value) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Websocket is the default.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Adds a header to every HTTP request of this client.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Source address of the TCP connections.
    pub fn local_address(mut self, address: IpAddr) -> Self {
        self.local_address = Some(address);
        self
    }

    /// Sets `SO_RCVBUF` of the websocket; polling connections keep the kernel's default.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Emits in the very turn in which the CONNECT packet is read, before `connect` returns; may be called repeatedly.
    pub fn emit_on_connect(mut self, name: impl Into<String>, payload: Value) -> Self {
        self.on_connect.push((name.into(), payload));
        self
    }

    /// Limit of `connect`, of every ack and of every expectation; 5 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Marks the events of this client in a channel that several share.
    pub fn tag(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }

    /// Sends every event to `events` instead of the mailbox; while it is full, the client does not read.
    pub fn stream(mut self, events: mpsc::Sender<Event>) -> Self {
        self.stream = Some(events);
        self
    }

    /// Connects and waits for the server's answer to CONNECT; dropping the future drops the connection.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        tokio::time::timeout(self.timeout, self.open())
            .await
            .map_err(|_| ConnectError::Timeout)?
    }

    async fn open(self) -> Result<Client, ConnectError> {
        let address = Address::parse(&self.url)?;
        let mut on_connect = Vec::with_capacity(self.on_connect.len());
        for (name, payload) in &self.on_connect {
            let frame = FrameWriter::event(None, name).and_then(|frame| frame.arg(payload));
            on_connect.push(
                frame
                    .map_err(|error| ConnectError::Transport(error.to_string()))?
                    .finish(),
            );
        }
        let (link, handshake, transport) = if self.transport == Transport::Websocket {
            let (ws, handshake) = websocket::open(&address, &self).await?;
            (Link::Websocket(Box::new(ws)), handshake, Transport::Websocket)
        } else {
            let (polling, handshake) = Polling::open(&address, &self).await?;
            let upgrade = self.transport == Transport::Upgrade && handshake.upgrades.iter().any(|to| to == "websocket");
            let upgrade = upgrade.then(|| Box::new((address, self.clone())));
            (Link::Polling(polling, upgrade), handshake, Transport::Polling)
        };
        let (out, outbox) = mpsc::channel(OUTBOX);
        let inner = Arc::new(Inner::new(out, transport));
        let connect = Out::Text(encode_connect(self.auth.as_ref()));
        inner
            .enqueue(connect)
            .map_err(|error| ConnectError::Transport(error.to_string()))?;
        let (connected, answer) = oneshot::channel();
        let engine_sid = handshake.sid.clone();
        let driver = Driver::new(inner.clone(), handshake, self.stream, self.tag, on_connect, connected);
        let task = tokio::spawn(driver.run(link, outbox)).abort_handle();
        let client = Client {
            inner,
            task,
            engine_sid,
            timeout: self.timeout,
        };
        match answer.await {
            Ok(answer) => answer.map(|()| client),
            Err(_) => {
                let reason = client.closed().await;
                Err(ConnectError::Transport(format!(
                    "ended before CONNECT was answered: {reason}"
                )))
            }
        }
    }
}
