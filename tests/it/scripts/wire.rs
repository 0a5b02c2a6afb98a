//! A bare connection to Redis, so that what the scripts did is not judged by the client library they are called with.

use std::collections::VecDeque;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::within;

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Text(Vec<u8>),
    Number(i64),
    List(Vec<Answer>),
    Nil,
    Error(String),
}

impl Answer {
    /// The text; numbers and nil have one too.
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::Nil => String::new(),
            other => panic!("not a text: {other:?}"),
        }
    }

    pub fn list(self) -> Vec<Answer> {
        match self {
            Self::List(items) => items,
            other => panic!("not a list: {other:?}"),
        }
    }
}

/// One connection; what the server pushes in between is kept.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    pub async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends a command without awaiting its answer.
    pub async fn send(&mut self, command: &[&[u8]]) {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes).await.unwrap();
    }

    /// Sends a command and returns its answer, errors included.
    pub async fn ask(&mut self, command: &[&[u8]]) -> Answer {
        self.send(command).await;
        self.read().await
    }

    /// Sends a command of words that must succeed.
    pub async fn call(&mut self, command: &[&str]) -> Answer {
        let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
        match self.ask(&words).await {
            Answer::Error(error) => panic!("{command:?}: {error}"),
            answer => answer,
        }
    }

    /// The next answer or push.
    pub async fn read(&mut self) -> Answer {
        within("Redis answers", self.read_answer()).await
    }

    async fn read_answer(&mut self) -> Answer {
        let mut done: Vec<(usize, Vec<Answer>)> = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            assert!(line.ends_with("\r\n"), "the connection ended: {line:?}");
            let (kind, rest) = line.trim_end().split_at(1);
            let mut answer = match kind {
                "+" => Answer::Text(rest.as_bytes().to_vec()),
                "-" => Answer::Error(rest.to_owned()),
                ":" => Answer::Number(rest.parse().unwrap()),
                "$" if rest == "-1" => Answer::Nil,
                "$" => {
                    let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                    self.stream.read_exact(&mut bytes).await.unwrap();
                    bytes.truncate(bytes.len() - 2);
                    Answer::Text(bytes)
                }
                "*" if rest == "0" => Answer::List(Vec::new()),
                "*" if rest != "-1" => {
                    done.push((rest.parse().unwrap(), Vec::new()));
                    continue;
                }
                _ => Answer::Nil,
            };
            loop {
                let Some((wanted, items)) = done.last_mut() else {
                    return answer;
                };
                items.push(answer);
                if items.len() < *wanted {
                    break;
                }
                answer = Answer::List(done.pop().unwrap().1);
            }
        }
    }

    /// What was published on this subscribed connection since the last call, in order: (channel, payload).
    pub async fn published(&mut self) -> VecDeque<(String, String)> {
        // The server writes to a subscriber in order: when the answer comes, everything before it has come.
        self.send(&[b"PING"]).await;
        let mut messages = VecDeque::new();
        loop {
            let items = self.read().await.list();
            match items[0].text().as_str() {
                "pong" => return messages,
                "message" | "smessage" => messages.push_back((items[1].text(), items[2].text())),
                _ => {}
            }
        }
    }
}
