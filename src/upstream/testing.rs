//! A service under the control of a test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use crate::config::{Config, Source};

/// An address where nobody listens.
pub(crate) const NOWHERE: &str = "http://127.0.0.1:1";

/// Serves `router` on a free port until the test's runtime ends; returns the base address.
pub(crate) async fn serve(router: Router) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// What a test's service was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) bearer: Option<String>,
    pub(crate) body: String,
}

/// A service that gives one answer, which the test may change, to whatever it is asked.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) url: String,
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    pub(crate) async fn start(status: u16, body: impl ToString) -> Self {
        let answer = Arc::new(Mutex::new((StatusCode::from_u16(status).unwrap(), body.to_string())));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (answers, notes) = (answer.clone(), asked.clone());
        let router = Router::new().fallback(move |request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            notes.lock().unwrap().push(Asked {
                line: format!("{} {}", parts.method, parts.uri),
                bearer: parts
                    .headers
                    .get("authorization")
                    .map(|value| value.to_str().unwrap().to_owned()),
                body: String::from_utf8(body.to_vec()).unwrap(),
            });
            let (status, body) = answers.lock().unwrap().clone();
            let mut response: Response = (status, body).into_response();
            if status.is_redirection() {
                response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
            }
            response
        });
        let url = serve(router).await;
        Self { url, answer, asked }
    }

    pub(crate) fn answer(&self, status: u16, body: impl ToString) {
        *self.answer.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), body.to_string());
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Asked {
        self.asked().pop().expect("the service was not asked")
    }
}

/// The required settings, then `pairs`.
pub(crate) fn config(pairs: &[(&'static str, &str)]) -> Config {
    let required = [
        ("AUTH_URL", NOWHERE),
        ("API_URL", NOWHERE),
        ("VISION_APP_INFO", "Vision"),
    ];
    let source = Source::from_pairs(required).with(pairs.iter().copied());
    let source = match pairs
        .iter()
        .any(|(name, _)| name.starts_with("JW") || *name == "AUTH_MODE")
    {
        true => source,
        false => source.with([("JWT_SECRET", "a-secret-of-thirty-two-characters")]),
    };
    let config = Config::read(&source).unwrap();
    config.validate().unwrap();
    config
}
