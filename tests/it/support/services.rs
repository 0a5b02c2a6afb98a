//! The reference services, behind a front that can fail on demand.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use roomcast::backend::{Backend, BackendConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::SECRET;

/// How the front treats calls of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switchable {
    /// Answers with this status and an empty object.
    Status(u16),
    /// Answers 200 with something that is no JSON.
    Garbage,
    /// Does not answer.
    Hang,
    /// Answers as it should, but only after [`Services::heal`].
    Held,
    /// Answers as it should, without this field.
    Without(&'static str),
}

type Faults = Arc<Mutex<Vec<(String, Switchable)>>>;

/// What the front knows.
#[derive(Clone, Default)]
struct Front {
    faults: Faults,
    /// Calls that are held.
    held: Arc<AtomicUsize>,
    router: Router,
}

/// The services of a test.
pub struct Services {
    address: SocketAddr,
    _backend: Backend,
    front: Front,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Services {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = BackendConfig {
            database_url: format!("sqlite://{}", folder.path().join("backend.db").display()),
            jwt_secret: SECRET.to_owned(),
            open_login: true,
            seed_users: 40,
            seed_rooms: 4,
            ..BackendConfig::default()
        };
        let backend = Backend::open(config).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut services = Self {
            address,
            front: Front {
                router: backend.router(),
                ..Front::default()
            },
            _backend: backend,
            stop: CancellationToken::new(),
            _folder: folder,
        };
        services.serve(listener);
        services
    }

    fn serve(&mut self, listener: TcpListener) {
        self.stop = CancellationToken::new();
        let router = Router::new().fallback(front).with_state(self.front.clone());
        let stopped = self.stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls whose path begins with `path` fail like this, until another fault of theirs or [`Self::heal`].
    pub fn fail(&self, path: &str, fault: Switchable) {
        self.front.faults.lock().unwrap().push((path.to_owned(), fault));
    }

    /// Everything works again.
    pub fn heal(&self) {
        self.front.faults.lock().unwrap().clear();
    }

    /// Calls that wait for [`Self::heal`].
    pub fn held(&self) -> usize {
        self.front.held.load(Ordering::Relaxed)
    }

    /// Logs a user in.
    pub async fn login(&self, user: usize) -> (String, String) {
        let answer: serde_json::Value = self
            .post("/login", serde_json::json!({"username": format!("user{user}")}))
            .await;
        (
            answer["accessToken"].as_str().unwrap().to_owned(),
            answer["refreshToken"].as_str().unwrap().to_owned(),
        )
    }

    /// Calls the services directly.
    pub async fn post(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let answer = reqwest::Client::new()
            .post(format!("{}{path}", self.url()))
            .json(&body)
            .send()
            .await
            .unwrap();
        answer.json().await.unwrap()
    }

    /// The archived messages of a room.
    pub async fn messages(&self, room: &str) -> Vec<serde_json::Value> {
        let url = format!(
            "{}/api/messages/get-messages/{room}?type=new&timestamp=0&limit=1000",
            self.url()
        );
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn front(State(front): State<Front>, request: Request<Body>) -> Response {
    let Front { faults, held, router } = front;
    let path = request.uri().path();
    let fault = faults
        .lock()
        .unwrap()
        .iter()
        .rfind(|(prefix, _)| path.starts_with(prefix))
        .map(|(_, fault)| *fault);
    match fault {
        None => router.oneshot(request).await.into_response(),
        Some(Switchable::Status(status)) => (StatusCode::from_u16(status).unwrap(), "{}").into_response(),
        Some(Switchable::Garbage) => "<html>not what you wanted</html>".into_response(),
        Some(Switchable::Without(field)) => {
            let (parts, body) = router.oneshot(request).await.into_response().into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let mut answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
            answer.as_object_mut().unwrap().remove(field);
            (parts.status, axum::Json(answer)).into_response()
        }
        Some(Switchable::Held) => {
            held.fetch_add(1, Ordering::Relaxed);
            while !faults.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            held.fetch_sub(1, Ordering::Relaxed);
            router.oneshot(request).await.into_response()
        }
        Some(Switchable::Hang) => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
    }
}
