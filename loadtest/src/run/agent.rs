//! An agent: it gives processes for clients to who leads a run on another machine, one for each connection.
//!
//! Who connects proves itself, and so does the agent (see `proof`). From then on the connection is the standard input and
//! output of a new process; it ends with either.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWriteExt as _, BufReader, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::line::{self, Orders, Sayings};
use super::proof::{Secret, SecretOptions, enter, let_in};
use crate::harness::{HarnessError, interrupted};

/// How long a proof, and the answer to it, may take.
const PROOF_MAX: Duration = Duration::from_secs(10);
/// How long an agent that does not listen yet is waited for.
const START_MAX: Duration = Duration::from_secs(30);
/// How often it is tried.
const CONNECT_PERIOD: Duration = Duration::from_millis(500);
/// Connections that may be about to prove themselves.
const UNPROVEN_MAX: usize = 16;
/// How long the other side may take nothing of what it is sent: its machine is gone.
const UNTAKEN_MAX: Duration = Duration::from_secs(30);
/// How long nothing may be sent before the other side is asked whether it is there: all may wait for one slow part.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// Waits for who leads a run (`run --agents`) and starts client processes for it, until it is interrupted.
///
/// One run at a time: the clients of a second one would take the cores of the first.
#[derive(Clone, Debug, Args)]
pub struct AgentOptions {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,
    /// Client processes at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub processes: u32,
    #[command(flatten)]
    pub secret: SecretOptions,
}

/// The client processes that an agent may have.
struct Places {
    max: u32,
    serving: Mutex<Serving>,
}

#[derive(Default)]
struct Serving {
    processes: u32,
    /// The run that has them, and from where it is led.
    run: String,
    leader: Option<SocketAddr>,
}

/// One of them, in use.
struct Place(Arc<Places>);

impl Places {
    fn take(self: &Arc<Self>, run: &str, leader: SocketAddr) -> Result<Place, String> {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = serving.leader.filter(|_| serving.processes > 0 && serving.run != run) {
            return Err(format!(
                "it serves another run, led from {}, until that is over",
                other.ip()
            ));
        }
        if serving.processes == self.max {
            return Err(format!(
                "all its {} client processes are in use; raise --processes",
                self.max
            ));
        }
        *serving = Serving {
            processes: serving.processes + 1,
            run: run.to_owned(),
            leader: Some(leader),
        };
        Ok(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.serving.lock().unwrap_or_else(PoisonError::into_inner).processes -= 1;
    }
}

/// Serves until it is interrupted.
pub async fn serve(options: AgentOptions) -> Result<bool, HarnessError> {
    let secret = options.secret.read()?;
    let listener = TcpListener::bind(options.listen).await?;
    println!(
        "an agent for up to {} client processes listens on {}",
        options.processes,
        listener.local_addr()?
    );
    let places = Arc::new(Places {
        max: options.processes,
        serving: Mutex::default(),
    });
    let unproven = Arc::new(Semaphore::new(UNPROVEN_MAX));
    let serving = async {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of files, say: that passes.
                    eprintln!("nobody can connect: {error}");
                    sleep(CONNECT_PERIOD).await;
                    continue;
                }
            };
            let Ok(proving) = unproven.clone().try_acquire_owned() else {
                continue;
            };
            let (secret, places) = (secret.clone(), places.clone());
            tokio::spawn(async move {
                let proven = timeout(PROOF_MAX, check(stream, peer, &secret, &places)).await;
                drop(proving);
                match proven.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok((stream, place)) => {
                        eprintln!("{peer}: a client process begins");
                        // However it ends, it is over for both.
                        let _ended = bridge(stream, place).await;
                        eprintln!("{peer}: it has ended");
                    }
                    Err(error) => eprintln!("{peer}: {error}"),
                }
            });
        }
    };
    tokio::select! {
        () = serving => {}
        // Also by SIGTERM, which the first process of a container would not notice otherwise.
        () = interrupted() => {}
    }
    Ok(true)
}

async fn check(
    stream: TcpStream,
    peer: SocketAddr,
    secret: &Secret,
    places: &Arc<Places>,
) -> io::Result<(BufReader<TcpStream>, Place)> {
    prepare(&stream)?;
    let mut stream = BufReader::new(stream);
    let place = let_in(&mut stream, secret, |run| places.take(run, peer)).await?;
    Ok((stream, place))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = SockRef::from(stream);
    stream.set_tcp_keepalive(&TcpKeepalive::new().with_time(QUIET_MAX).with_interval(QUIET_MAX))?;
    stream.set_tcp_user_timeout(Some(UNTAKEN_MAX))
}

async fn bridge(stream: BufReader<TcpStream>, place: Place) -> io::Result<()> {
    let (mut part, mut orders, mut said) = line::part(None)?;
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::select! {
        ended = copy(&mut from, &mut orders) => ended?,
        ended = copy(&mut said, &mut to) => ended?,
    };
    part.kill().await?;
    // Before the other side learns of the end: its next run may follow at once.
    drop(place);
    to.shutdown().await
}

/// Starts a part of `run` at an agent; `must_be_near` where the nodes can be reached from this machine alone.
pub async fn remote(
    agent: &str,
    secret: &Secret,
    run: &str,
    must_be_near: bool,
) -> Result<(Orders, Sayings), HarnessError> {
    let unfit = |why: &dyn std::fmt::Display| HarnessError::Setup(format!("agent {agent}: {why}"));
    let stream = connect(agent).await.map_err(|error| unfit(&error))?;
    let is_near = stream.peer_addr()?.ip().is_loopback();
    if must_be_near && !is_near {
        return Err(unfit(
            &"it cannot reach the nodes that are started here, on 127.0.0.1; name some that it reaches by --url",
        ));
    }
    prepare(&stream)?;
    let mut stream = BufReader::new(stream);
    timeout(PROOF_MAX, enter(&mut stream, secret, run))
        .await
        .map_err(|_| unfit(&"no answer"))?
        .map_err(|error| unfit(&error))?;
    let (from, to) = tokio::io::split(stream);
    Ok(line::line(from, to, format!("a client process at {agent}"), None))
}

/// Agents and who leads them may be started together.
async fn connect(agent: &str) -> io::Result<TcpStream> {
    let began = Instant::now();
    loop {
        match timeout(PROOF_MAX, TcpStream::connect(agent)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if began.elapsed() > START_MAX => return Err(error),
            Err(_) if began.elapsed() > START_MAX => return Err(io::ErrorKind::TimedOut.into()),
            _ => sleep(CONNECT_PERIOD).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_at_a_time_has_the_places() {
        let places = Arc::new(Places {
            max: 2,
            serving: Mutex::default(),
        });
        let (here, there) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.2:2".parse().unwrap());
        let (one, two) = (
            places.take("one", here).ok().unwrap(),
            places.take("one", here).ok().unwrap(),
        );
        assert!(places.take("one", here).err().unwrap().contains("raise --processes"));
        drop(one);
        let refused = places.take("two", there).err().unwrap();
        assert!(refused.contains("another run, led from 127.0.0.1"), "{refused}");
        drop(two);
        let _next = places.take("two", there).ok().unwrap();
        assert!(places.take("one", here).err().unwrap().contains("127.0.0.2"));
    }
}
