//! A real HAProxy in front of the nodes, set up as docs/operations.md says.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;

use super::Deployment;
use super::child::{Ports, Process, Program, wait_until};

/// Connections that are half closed while their clients are back already.
const SPARE: u32 = 400;
/// How long its start may take.
const START_MAX: Duration = Duration::from_secs(10);

/// The load balancer; dropping it kills it.
#[derive(Debug)]
pub struct Haproxy {
    /// Where clients connect.
    pub url: String,
    _process: Process,
}

impl Haproxy {
    /// Starts it for so many sockets, each of which takes two of its descriptors.
    pub async fn start(deployment: &Deployment, sockets: u32, dir: &Path) -> io::Result<Self> {
        let port = Ports::new().free().await?;
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, config(deployment, sockets, port))?;
        // The path of an ordinary user does not name its folder everywhere.
        let installed = PathBuf::from("/usr/sbin/haproxy");
        let mut process = Process::new(Program {
            name: "haproxy".to_owned(),
            command: if installed.exists() {
                installed
            } else {
                "haproxy".into()
            },
            args: vec!["-db".to_owned(), "-f".to_owned(), file.display().to_string()],
            env: Vec::new(),
            dir: dir.to_owned(),
            log: dir.join("haproxy.log"),
        });
        process.start()?;
        let listens = wait_until(START_MAX, async || {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        });
        if !listens.await {
            return Err(io::Error::other(format!(
                "HAProxy does not start:\n{}",
                process.tail(15)
            )));
        }
        Ok(Self {
            url: format!("http://127.0.0.1:{port}"),
            _process: process,
        })
    }
}

fn config(deployment: &Deployment, sockets: u32, port: u16) -> String {
    let maxconn = sockets + SPARE;
    let mut text = format!(
        "global
  maxconn {maxconn}
defaults
  mode http
  timeout connect 2s
  timeout client 90s
  timeout server 90s
  timeout tunnel 1h
  # A node that has just gone is found out by a connect that fails: then another one is asked.
  retries 3
  option redispatch 1
  retry-on conn-failure
frontend clients
  bind 127.0.0.1:{port}
  maxconn {maxconn}
  default_backend nodes
backend nodes
  # A new node fills up, and none gets more than its share.
  balance leastconn
  option httpchk GET /readyz
  # An answer that is late says that the node is busy, not that it is gone.
  timeout check 5s
  default-server inter 500ms fall 2 rise 1 check
"
    );
    let authority = |url: &str| url.trim_start_matches("http://").to_owned();
    for (index, node) in deployment.nodes.iter().enumerate() {
        let (clients, ops) = (authority(&node.url), authority(&node.ops));
        let _infallible = writeln!(
            text,
            "  server node-{index} {clients} addr {} port {}",
            host(&ops),
            tail(&ops)
        );
    }
    text
}

fn host(authority: &str) -> &str {
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn tail(authority: &str) -> &str {
    authority.rsplit_once(':').map_or("80", |(_, port)| port)
}
