//! The page of the demo: static files and the addresses that it needs; no other node serves it.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

use crate::config::Config;

/// Path and content of the official Socket.IO client and of our helper; empty where the build had none.
const VENDOR: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/vendor.rs"));
/// What the page cannot do without.
const NEEDED: [&str; 2] = ["/vendor/socket.io.js", "/vendor/roomcast/index.js"];
const JS: &str = "text/javascript; charset=utf-8";
/// Browsers keep a copy and ask whether it still holds: a new build shows at the next load.
const CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// Path, type and content of every file.
macro_rules! files {
    ($($path:literal $kind:expr, $file:literal;)+) => {
        [$(($path, $kind, include_bytes!(concat!("web/", $file)).as_slice()),)+]
    };
}

/// The page, ready to be served.
pub struct Page {
    files: Vec<File>,
    /// Where the page logs in.
    backend: String,
    /// Where it may connect, this node included.
    nodes: Vec<String>,
}

struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static [u8],
    etag: HeaderValue,
}

impl Page {
    /// The page, where the settings ask for one.
    pub fn new(config: &Config) -> Option<Self> {
        let backend = config.demo_page.as_ref()?.as_str().to_owned();
        let files = files! {
            "/" "text/html; charset=utf-8", "index.html";
            "/style.css" "text/css; charset=utf-8", "style.css";
            "/icon.svg" "image/svg+xml", "icon.svg";
            "/app.js" JS, "app.js";
            "/chat.js" JS, "chat.js";
            "/composer.js" JS, "composer.js";
            "/connection.js" JS, "connection.js";
            "/dom.js" JS, "dom.js";
            "/messages.js" JS, "messages.js";
            "/replies.js" JS, "replies.js";
            "/rooms.js" JS, "rooms.js";
            "/session.js" JS, "session.js";
            "/sidebar.js" JS, "sidebar.js";
            "/status.js" JS, "status.js";
            "/words.js" JS, "words.js";
        };
        let files = files
            .into_iter()
            .chain(VENDOR.iter().map(|(path, content)| (*path, JS, *content)))
            .filter_map(|(path, kind, content)| {
                let etag = HeaderValue::from_str(&format!("\"{:.16x}\"", Sha256::digest(content))).ok()?;
                Some(File {
                    path,
                    kind,
                    content,
                    etag,
                })
            })
            .collect();
        let nodes = config.demo_nodes.iter().map(|url| url.as_str().to_owned()).collect();
        Some(Self { files, backend, nodes })
    }

    /// The answer to a request for anything but Socket.IO; `None`: there is no such file.
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let path = request.uri().path();
        let response = if path == "/config.json" {
            Response::builder()
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::CACHE_CONTROL, "no-store")
                .body(Body::from(self.addresses(request.headers()).to_string()))
        } else {
            let file = self.files.iter().find(|file| file.path == path)?;
            let response = Response::builder()
                .header(header::ETAG, &file.etag)
                .header(header::CACHE_CONTROL, CACHE);
            let known = request.headers().get(header::IF_NONE_MATCH);
            if known.is_some_and(|known| names(known, &file.etag)) {
                response.status(StatusCode::NOT_MODIFIED).body(Body::empty())
            } else {
                response
                    .header(header::CONTENT_TYPE, file.kind)
                    .body(Body::from(Bytes::from_static(file.content)))
            }
        };
        let mut response = response.unwrap_or_default();
        match *request.method() {
            Method::GET => {}
            Method::HEAD => *response.body_mut() = Body::empty(),
            _ => {
                response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                response
                    .headers_mut()
                    .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
        }
        self.protect(request.headers(), response.headers_mut());
        Some(response)
    }

    fn addresses(&self, headers: &HeaderMap) -> serde_json::Value {
        let nodes: Vec<_> = self.nodes.iter().map(|url| reachable(url, headers)).collect();
        serde_json::json!({
            "backend": reachable(&self.backend, headers),
            "nodes": nodes,
            "client": NEEDED.iter().all(|needed| VENDOR.iter().any(|(path, _)| path == needed)),
        })
    }

    /// Nothing but our own files runs, and the page talks to nobody but the backend and the nodes.
    fn protect(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        let mut connect = format!("'self' {}", reachable(&self.backend, request));
        for url in &self.nodes {
            let url = reachable(url, request);
            // `http:` becomes `ws:`, `https:` becomes `wss:`.
            connect += &format!(" {url} {}", url.replacen("http", "ws", 1));
        }
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {connect}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        );
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
}

/// Whether `If-None-Match` names the content.
fn names(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(known), Ok(etag)) = (known.to_str(), etag.to_str()) else {
        return false;
    };
    known
        .split(',')
        .any(|one| one.trim().trim_start_matches("W/") == etag || one.trim() == "*")
}

/// An address as the asking browser can reach it: "every address" stands for the one it has asked at.
fn reachable(url: &str, headers: &HeaderMap) -> String {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .and_then(|host| host.parse::<http::uri::Authority>().ok());
    let Some(host) = host else { return url.to_owned() };
    for every in ["://0.0.0.0:", "://[::]:"] {
        if let Some((scheme, port)) = url.split_once(every) {
            return format!("{scheme}://{}:{port}", host.host());
        }
    }
    url.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn page() -> Option<Page> {
        let config = Config::read(&Source::from_pairs([
            ("AUTH_URL", "http://127.0.0.1:1"),
            ("API_URL", "http://127.0.0.1:1"),
            ("VISION_APP_INFO", "Mozilla"),
            ("JWT_SECRET", "s3cret-s3cret"),
            ("ROOMCAST_DEMO_PAGE", "http://0.0.0.0:8090"),
            ("ROOMCAST_DEMO_NODES", "http://0.0.0.0:8080,http://127.0.0.1:8081"),
        ]));
        Page::new(&config.unwrap())
    }

    fn ask(method: Method, path: &str, extra: &[(&'static str, &str)]) -> Option<Response<Body>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "chat.lan:8080");
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        page().unwrap().answer(&request.body(()).unwrap())
    }

    #[test]
    fn no_node_serves_the_page_unasked() {
        let config = Config::read(&Source::from_pairs([
            ("AUTH_URL", "http://127.0.0.1:1"),
            ("API_URL", "http://127.0.0.1:1"),
            ("VISION_APP_INFO", "Mozilla"),
            ("JWT_SECRET", "s3cret-s3cret"),
        ]));
        assert!(Page::new(&config.unwrap()).is_none());
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let first = ask(Method::GET, "/", &[]).unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        let etag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(etag.len(), 18, "{etag}");
        let again = ask(Method::GET, "/", &[("if-none-match", &format!("\"x\", W/{etag}"))]).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(
            ask(Method::POST, "/", &[]).unwrap().status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert!(ask(Method::GET, "/web.rs", &[]).is_none());
    }

    #[test]
    fn the_page_may_talk_to_the_backend_and_the_nodes_only() {
        let answer = ask(Method::GET, "/", &[]).unwrap();
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        let connect = "connect-src 'self' http://chat.lan:8090 http://chat.lan:8080 ws://chat.lan:8080 http://127.0.0.1:8081 ws://127.0.0.1:8081;";
        assert!(policy.contains(connect), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        // Whatever a request says about its host, it adds no source.
        let odd = ask(Method::GET, "/", &[("host", "evil.example; script-src *")]).unwrap();
        let policy = odd.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(!policy.contains("evil") || !policy.contains("script-src *"), "{policy}");
    }
}
