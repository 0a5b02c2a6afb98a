//! Just enough of the Redis protocol to look at keys and to give orders: one command on a connection of its own.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any healthy answer on two busy cores; a stopped server must not hold up the run.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status or a string.
    Text(String),
    /// A number.
    Int(i64),
    /// Nothing there.
    Nil,
    /// Several.
    List(Vec<Reply>),
    /// The server says no.
    Error(String),
}

impl Reply {
    /// The text, empty for everything else.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// The parts, none for everything else.
    pub fn list(&self) -> &[Reply] {
        match self {
            Self::List(parts) => parts,
            _ => &[],
        }
    }
}

/// Sends one command to a server of this machine; an error reply is an error.
pub async fn call(port: u16, command: &[&str]) -> io::Result<Reply> {
    match exchange(port, command).await? {
        Reply::Error(error) => Err(io::Error::other(error)),
        reply => Ok(reply),
    }
}

/// As [`call`], to whichever server owns the key of the command, starting at any.
pub async fn call_routed(port: u16, command: &[&str]) -> io::Result<Reply> {
    let mut port = port;
    // More hops than a settled cluster needs.
    for _ in 0..5 {
        match exchange(port, command).await? {
            Reply::Error(error) if error.starts_with("MOVED ") => {
                let owner = error.rsplit(':').next().and_then(|port| port.parse().ok());
                port = owner.ok_or_else(|| io::Error::other(error))?;
            }
            Reply::Error(error) => return Err(io::Error::other(error)),
            reply => return Ok(reply),
        }
    }
    Err(io::Error::other("too many redirections"))
}

async fn exchange(port: u16, command: &[&str]) -> io::Result<Reply> {
    let mut request = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        request.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
    }
    let talk = async {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
        stream.write_all(&request).await?;
        read(&mut stream).await
    };
    timeout(ANSWER_MAX, talk)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))?
}

type Reading<'a> = Pin<Box<dyn Future<Output = io::Result<Reply>> + Send + 'a>>;

fn read(stream: &mut BufReader<TcpStream>) -> Reading<'_> {
    Box::pin(async move {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (Some(kind), Some(rest)) = (line.get(..1), line.get(1..)) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    stream.read_exact(&mut bytes).await?;
                    bytes.truncate(length);
                    Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(count) => {
                    let mut parts = Vec::new();
                    for _ in 0..count {
                        parts.push(read(stream).await?);
                    }
                    Reply::List(parts)
                }
            },
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    })
}
