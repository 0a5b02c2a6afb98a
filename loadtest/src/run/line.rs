//! The line to a process of a load test, on this machine or at an agent: orders out, what it says back, a line of JSON each.

use std::fs::File;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::part::{Order, Said};
use super::proof::VARIABLE;

/// Longest line that is read, bytes: a second of a part has a few thousand latencies.
const LINE_MAX: u64 = 16 * 1024 * 1024;
/// A part says something each second; one that is silent for longer is gone, or its machine is.
const SILENT_MAX: Duration = Duration::from_secs(20);

type Reader = BufReader<Box<dyn AsyncRead + Send + Unpin>>;

/// What a part hears.
pub struct Orders(Box<dyn AsyncWrite + Send + Unpin>);

/// What a part says.
pub struct Sayings {
    reader: Reader,
    name: String,
    /// Ends with the line.
    _process: Option<Child>,
}

/// Starts a part as a process of this machine, which complains to a file or where this process does.
pub fn local(complaints: Option<File>) -> io::Result<(Orders, Sayings)> {
    let (process, orders, said) = part(complaints)?;
    Ok(line(said, orders, "a client process".to_owned(), Some(process)))
}

/// A process of clients, and its standard input and output.
pub(super) fn part(complaints: Option<File>) -> io::Result<(Child, ChildStdin, ChildStdout)> {
    let mut process = Command::new(std::env::current_exe()?)
        .arg("part")
        // It has no use for it.
        .env_remove(VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(complaints.map_or_else(Stdio::inherit, Stdio::from))
        .kill_on_drop(true)
        .spawn()?;
    let no_pipe = || io::Error::other("a part has no pipes");
    let orders = process.stdin.take().ok_or_else(no_pipe)?;
    let said = process.stdout.take().ok_or_else(no_pipe)?;
    Ok((process, orders, said))
}

/// A line over any two streams.
pub(super) fn line(
    from: impl AsyncRead + Send + Unpin + 'static,
    to: impl AsyncWrite + Send + Unpin + 'static,
    name: String,
    process: Option<Child>,
) -> (Orders, Sayings) {
    let sayings = Sayings {
        reader: BufReader::new(Box::new(from)),
        name,
        _process: process,
    };
    (Orders(Box::new(to)), sayings)
}

impl Orders {
    /// Says what is to be done.
    pub async fn give(&mut self, order: &Order) -> io::Result<()> {
        let order = format!("{}\n", serde_json::to_string(order)?);
        self.0.write_all(order.as_bytes()).await
    }

    /// Lets the talk begin.
    pub async fn go(&mut self) -> io::Result<()> {
        self.0.write_all(b"go\n").await
    }
}

impl Sayings {
    /// The next thing that it says; an error names the part.
    pub async fn next(&mut self) -> io::Result<Said> {
        let broken = |why: &str| io::Error::other(format!("{}: {why}", self.name));
        let line = match timeout(SILENT_MAX, read_line(&mut self.reader, LINE_MAX)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => return Err(broken("ended by itself")),
            Ok(Err(error)) => return Err(broken(&error.to_string())),
            Err(_) => return Err(broken("says nothing any more")),
        };
        serde_json::from_str(&line).map_err(|error| broken(&error.to_string()))
    }

    /// Waits for the end of a part that is done: it closes its sockets.
    pub async fn end(mut self) {
        // There is nothing more to hear.
        let _ended = timeout(SILENT_MAX, read_line(&mut self.reader, LINE_MAX)).await;
    }
}

/// A line without its end; `None` at the end of the stream.
pub(super) async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), max: u64) -> io::Result<Option<String>> {
    let mut line = String::new();
    reader.take(max).read_line(&mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if !line.ends_with('\n') {
        return Err(io::Error::other("a line that does not end"));
    }
    line.pop();
    Ok(Some(line))
}
