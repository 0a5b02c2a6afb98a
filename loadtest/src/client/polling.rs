//! The polling transport: one GET that waits, one POST at a time.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::address::Address;
use super::inner::Out;
use super::{Builder, ConnectError};
use crate::packet::{EnginePacket, Handshake, SEPARATOR};

/// What a server that names no `maxPayload` surely accepts.
const DEFAULT_PAYLOAD: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Polling {
    http: reqwest::Client,
    url: String,
    max_payload: usize,
}

fn transport(error: reqwest::Error) -> ConnectError {
    // reqwest's own text names only the URL; the cause is what one wants to know.
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    ConnectError::Transport(text)
}

impl Polling {
    /// Opens a session by polling; further packets of the first answer are not expected by the protocol.
    pub async fn open(address: &Address, builder: &Builder) -> Result<(Self, Handshake), ConnectError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &builder.headers {
            let name: HeaderName = name
                .parse()
                .map_err(|_| ConnectError::Transport(format!("header {name:?}")))?;
            let value =
                HeaderValue::from_str(value).map_err(|_| ConnectError::Transport(format!("value of {name}")))?;
            headers.append(name, value);
        }
        // A proxy from the environment would hide the source address.
        let http = reqwest::Client::builder()
            .no_proxy()
            .default_headers(headers)
            .local_address(builder.local_address);
        let http = http
            .tcp_nodelay(true)
            .pool_max_idle_per_host(2)
            .build()
            .map_err(transport)?;
        let url = format!("http://{}{}", address.authority, Address::path("polling", None));
        let mut polling = Self {
            http,
            url,
            max_payload: DEFAULT_PAYLOAD,
        };
        let body = polling.get().await?;
        let Ok(EnginePacket::Open(handshake)) = EnginePacket::parse(&body) else {
            return Err(ConnectError::Transport(format!("no open packet but {body:?}")));
        };
        polling.url = format!(
            "http://{}{}",
            address.authority,
            Address::path("polling", Some(&handshake.sid))
        );
        if handshake.max_payload > 0 {
            polling.max_payload = handshake.max_payload;
        }
        Ok((polling, handshake))
    }

    /// Waits for packets; the body holds at least one.
    pub async fn get(&self) -> Result<String, ConnectError> {
        read(self.http.get(&self.url).send().await.map_err(transport)?).await
    }

    /// Posts the batch in as few bodies as the server's limit allows; true after a disconnect was among it.
    pub async fn post(&self, batch: &mut Vec<Out>) -> Result<bool, ConnectError> {
        let mut body = String::new();
        for out in batch.drain(..) {
            let (packet, last) = match out {
                Out::Text(text) => (text, false),
                Out::Binary(bytes) => (format!("b{}", base64(&bytes)), false),
                Out::Disconnect => ("41".to_owned(), true),
            };
            if !body.is_empty() && body.len() + packet.len() + SEPARATOR.len_utf8() > self.max_payload {
                self.post_body(std::mem::take(&mut body)).await?;
            }
            if !body.is_empty() {
                body.push(SEPARATOR);
            }
            body.push_str(&packet);
            if last {
                self.post_body(body).await?;
                // In a body of its own, as the official client does: in one, the official server closes before it
                // reads the goodbye. The session may be gone already.
                let _ = self.post_body("1".to_owned()).await;
                return Ok(true);
            }
        }
        self.post_body(body).await?;
        Ok(false)
    }

    async fn post_body(&self, body: String) -> Result<(), ConnectError> {
        let request = self
            .http
            .post(&self.url)
            .header("content-type", "text/plain;charset=UTF-8")
            .body(body);
        read(request.send().await.map_err(transport)?).await.map(drop)
    }
}

async fn read(response: reqwest::Response) -> Result<String, ConnectError> {
    let status = response.status();
    let headers: Vec<_> = if status.is_success() {
        Vec::new()
    } else {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect()
    };
    let body = String::from_utf8_lossy(&response.bytes().await.map_err(transport)?).into_owned();
    if status.is_success() {
        Ok(body)
    } else {
        Err(ConnectError::Http {
            status: status.as_u16(),
            body,
            headers,
        })
    }
}

/// Binary packets travel as base64 in a polling body.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sextet = word >> (18 - 6 * place) & 63;
            text.push(if place > chunk.len() {
                '='
            } else {
                char::from(ALPHABET[sextet as usize])
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads_like_everyone() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
