//! An agent: it gives processes for clients to a coordinator on another machine, one for each connection.
//!
//! Who connects proves that it knows the secret: it answers a random challenge with its HMAC (RFC 2104, SHA-256), so that the
//! secret itself is never sent. From then on the connection is the standard input and output of a new process; it ends with
//! either.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use socket2::SockRef;
use tokio::io::{AsyncWriteExt as _, BufReader, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::line::{self, Orders, Sayings, read_line};
use crate::harness::HarnessError;

/// How long a proof, and the answer to it, may take.
const PROOF_MAX: Duration = Duration::from_secs(10);
/// How long an agent that does not listen yet is waited for.
const START_MAX: Duration = Duration::from_secs(30);
/// How often it is tried.
const CONNECT_PERIOD: Duration = Duration::from_millis(500);
/// Longest line of the proof, bytes.
const LINE_MAX: u64 = 1024;
/// Connections that may be about to prove themselves.
const UNPROVEN_MAX: usize = 16;
/// How long the other side may take nothing of what it is sent: its machine is gone.
const UNTAKEN_MAX: Duration = Duration::from_secs(30);
/// Shortest secret, bytes.
const SECRET_MIN: usize = 16;

/// Waits for coordinators (`run --agents`) and starts client processes for them, until it is interrupted.
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

/// What coordinators and agents both know.
#[derive(Clone, Debug, Default, Args)]
pub struct SecretOptions {
    /// A file with the secret that coordinators and agents share, at least 16 bytes
    #[arg(long, value_name = "FILE", env = "ROOMCAST_LOAD_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Challenge {
    nonce: String,
}

#[derive(Serialize, Deserialize)]
struct Proof {
    proof: String,
}

#[derive(Serialize, Deserialize)]
struct Welcome {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// A shared secret.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl SecretOptions {
    /// The secret, which must be there.
    pub fn read(&self) -> Result<Secret, HarnessError> {
        let file = self.secret_file.as_deref().ok_or_else(|| {
            HarnessError::Setup(
                "--secret-file: name a file with the secret that coordinators and agents share, such as `openssl rand -hex 32` makes"
                    .to_owned(),
            )
        })?;
        read_secret(file)
    }
}

fn read_secret(file: &Path) -> Result<Secret, HarnessError> {
    let unfit = |why: &dyn std::fmt::Display| HarnessError::Setup(format!("--secret-file {}: {why}", file.display()));
    let secret = std::fs::read(file).map_err(|error| unfit(&error))?;
    let secret = secret.trim_ascii().to_vec();
    if secret.len() < SECRET_MIN {
        return Err(unfit(&format!("{} bytes; use at least {SECRET_MIN}", secret.len())));
    }
    Ok(Secret(secret))
}

impl Secret {
    fn mac(&self, nonce: &str) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(io::Error::other)?;
        mac.update(nonce.as_bytes());
        Ok(mac)
    }

    fn proof(&self, nonce: &str) -> io::Result<String> {
        Ok(hex(&self.mac(nonce)?.finalize().into_bytes()))
    }

    fn is_proof(&self, nonce: &str, proof: &str) -> io::Result<bool> {
        // In constant time.
        Ok(self.mac(nonce)?.verify_slice(&unhex(proof).unwrap_or_default()).is_ok())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    Some(
        digits?
            .chunks(2)
            .map(|two| two.iter().fold(0, |byte, digit| byte * 16 + digit) as u8)
            .collect(),
    )
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
    let (free, unproven) = (
        Arc::new(Semaphore::new(options.processes as usize)),
        Arc::new(Semaphore::new(UNPROVEN_MAX)),
    );
    let serving = async {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => break error,
            };
            let Ok(place) = unproven.clone().try_acquire_owned() else {
                continue;
            };
            let (secret, free) = (secret.clone(), free.clone());
            tokio::spawn(async move {
                let proven = timeout(PROOF_MAX, check(stream, &secret, &free)).await;
                drop(place);
                match proven.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok((stream, _process)) => {
                        eprintln!("{peer}: a client process begins");
                        // However it ends, it is over for both.
                        let _ended = bridge(stream).await;
                        eprintln!("{peer}: it has ended");
                    }
                    Err(error) => eprintln!("{peer}: {error}"),
                }
            });
        }
    };
    tokio::select! {
        error = serving => Err(error.into()),
        interrupted = tokio::signal::ctrl_c() => { interrupted?; Ok(true) }
    }
}

type Granted = (BufReader<TcpStream>, tokio::sync::OwnedSemaphorePermit);

async fn check(stream: TcpStream, secret: &Secret, free: &Arc<Semaphore>) -> io::Result<Granted> {
    prepare(&stream)?;
    let nonce = hex(&rand::random::<[u8; 32]>());
    let mut stream = BufReader::new(stream);
    say(&mut stream, &Challenge { nonce: nonce.clone() }).await?;
    let proof: Proof = hear(&mut stream).await?;
    let refusal = if secret.is_proof(&nonce, &proof.proof)? {
        match free.clone().try_acquire_owned() {
            Ok(process) => {
                say(&mut stream, &Welcome { refused: None }).await?;
                return Ok((stream, process));
            }
            Err(_) => "all its client processes are in use; raise --processes",
        }
    } else {
        "it has another secret"
    };
    let refused = Some(refusal.to_owned());
    say(&mut stream, &Welcome { refused }).await?;
    Err(io::Error::other(format!("refused: {refusal}")))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(UNTAKEN_MAX))
}

async fn bridge(stream: BufReader<TcpStream>) -> io::Result<()> {
    let mut part = line::part()?;
    let no_pipe = || io::Error::other("a part has no pipes");
    let mut orders = part.stdin.take().ok_or_else(no_pipe)?;
    let mut said = part.stdout.take().ok_or_else(no_pipe)?;
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::select! {
        ended = copy(&mut from, &mut orders) => ended?,
        ended = copy(&mut said, &mut to) => ended?,
    };
    to.shutdown().await
}

async fn say(stream: &mut BufReader<TcpStream>, what: &impl Serialize) -> io::Result<()> {
    let line = format!("{}\n", serde_json::to_string(what)?);
    stream.write_all(line.as_bytes()).await
}

async fn hear<T: serde::de::DeserializeOwned>(stream: &mut BufReader<TcpStream>) -> io::Result<T> {
    let line = read_line(stream, LINE_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_str(&line)?)
}

/// Starts a part at an agent.
pub async fn remote(agent: &str, secret: &Secret) -> Result<(Orders, Sayings), HarnessError> {
    let unfit = |why: &dyn std::fmt::Display| HarnessError::Setup(format!("agent {agent}: {why}"));
    let stream = connect(agent).await.map_err(|error| unfit(&error))?;
    let proven = timeout(PROOF_MAX, prove(stream, secret)).await;
    let stream = proven
        .map_err(|_| unfit(&"no answer"))?
        .map_err(|error| unfit(&error))?;
    let (from, to) = tokio::io::split(stream);
    Ok(line::line(from, to, format!("a client process at {agent}"), None))
}

/// Agents and their coordinator may be started together.
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

async fn prove(stream: TcpStream, secret: &Secret) -> io::Result<BufReader<TcpStream>> {
    prepare(&stream)?;
    let mut stream = BufReader::new(stream);
    let challenge: Challenge = hear(&mut stream).await?;
    let proof = secret.proof(&challenge.nonce)?;
    say(&mut stream, &Proof { proof }).await?;
    let welcome: Welcome = hear(&mut stream).await?;
    match welcome.refused {
        None => Ok(stream),
        Some(why) => Err(io::Error::other(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_proves_itself() {
        let (secret, other) = (
            Secret(b"one secret of sixteen".into()),
            Secret(b"another of sixteen.".into()),
        );
        let proof = secret.proof("nonce").unwrap();
        assert!(secret.is_proof("nonce", &proof).unwrap());
        for (nonce, proof) in [
            ("other", proof.as_str()),
            ("nonce", ""),
            ("nonce", "zz"),
            ("nonce", &proof[..62]),
        ] {
            assert!(!secret.is_proof(nonce, proof).unwrap(), "{nonce} {proof}");
        }
        assert!(!other.is_proof("nonce", &proof).unwrap());
    }

    #[test]
    fn a_secret_that_is_short_or_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let options = SecretOptions {
            secret_file: Some(file.clone()),
        };
        assert!(options.read().err().unwrap().to_string().contains("--secret-file"));
        std::fs::write(&file, "short\n").unwrap();
        assert!(
            options
                .read()
                .err()
                .unwrap()
                .to_string()
                .contains("5 bytes; use at least 16")
        );
        assert!(
            SecretOptions::default()
                .read()
                .err()
                .unwrap()
                .to_string()
                .contains("openssl")
        );
    }
}
