//! An endpoint that answers as many prompts as come, in words at a set pace, and notes when it began with each.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Bytes of a prompt that are read; ours are a few hundred.
const BODY_MAX: usize = 1024 * 1024;

/// The endpoint; it ends with it.
#[derive(Debug)]
pub struct Model {
    /// What `GPT_BASE_URL` is to be.
    pub url: String,
    begun: Arc<Mutex<HashMap<String, Instant>>>,
    _serving: JoinSet<()>,
}

/// What an answer consists of.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Words of an answer.
    pub words: u32,
    /// The pause before each of them.
    pub pause: Duration,
}

impl Model {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(pace: Pace) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let begun: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let (mut serving, shared) = (JoinSet::new(), begun.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                connections.spawn(async move {
                    // A worker that dies breaks its connections.
                    let _broken = serve(stream, pace, &shared).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            url,
            begun,
            _serving: serving,
        })
    }

    /// When the first word of the newest answer to a question was written.
    pub fn begun(&self, key: &str) -> Option<Instant> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.get(key).copied()
    }
}

/// The key in a question's text.
pub fn key_of(text: &str) -> Option<&str> {
    text.split(' ').find(|word| word.starts_with("key:"))
}

async fn serve(stream: TcpStream, pace: Pace, begun: &Mutex<HashMap<String, Instant>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        if length > BODY_MAX {
            return Err(io::Error::other("the prompt is too large"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let prompt: Value = serde_json::from_slice(&body)?;
        let turns = prompt["messages"].as_array();
        let question = turns.and_then(|turns| turns.last()?["content"].as_str());
        let key = question.and_then(key_of).unwrap_or_default();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        for word in 0..pace.words.max(1) {
            if !pace.pause.is_zero() {
                sleep(pace.pause).await;
            }
            let text = if word == 0 {
                format!("{key} ")
            } else {
                format!("word{word} ")
            };
            let delta = json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] });
            if word == 0 {
                let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                begun.insert(key.to_owned(), Instant::now());
            }
            stream.write_all(chunk(&delta.to_string()).as_bytes()).await?;
        }
        let end = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
        let rest = chunk(&end.to_string()) + &chunk("[DONE]") + "0\r\n\r\n";
        stream.write_all(rest.as_bytes()).await?;
    }
}

fn chunk(data: &str) -> String {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}
