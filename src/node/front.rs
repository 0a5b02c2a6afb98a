//! What a request meets before Socket.IO: its address, its origin, blocks, readiness; and what it leaves behind.

mod refusal;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::upgrade::OnUpgrade;
use ipnet::IpNet;
use socketioxide::service::SocketIoService;
use socketioxide::socket::Sid;

use self::refusal::Refusal;
use super::address::client_address;
use super::proxy::ProxyHeader;
use crate::config::{Config, Origins, Rule};
use crate::guard::Entry;
use crate::model::ClientAddress;
use crate::redis::Adapter;
use crate::socket::{App, ClientInfo, Conn, SessionPlace, Waiting};
use crate::web::Page;

/// Where the Socket.IO clients connect.
const SOCKET_PATH: &str = "/socket.io/";
/// When to come back to a node that cannot serve now.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Headers that the engine reads; the socket keeps the request's head for life.
const KEPT_HEADERS: [HeaderName; 2] = [header::CONTENT_TYPE, header::SEC_WEBSOCKET_KEY];
/// Headers that decide over a handshake.
const JUDGED_HEADERS: [HeaderName; 3] = [header::HOST, header::ORIGIN, HeaderName::from_static("x-forwarded-for")];

/// The Socket.IO service behind the front.
pub type SocketService = SocketIoService<NoPage, Adapter>;

/// What is behind Socket.IO's own path: nothing.
#[derive(Clone)]
pub struct NoPage;

impl Service<Request<Incoming>> for NoPage {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _request: Request<Incoming>) -> Self::Future {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        std::future::ready(Ok(response))
    }
}

/// The outermost service of a node.
#[derive(Clone)]
pub struct Front(Arc<State>);

struct State {
    trusted: Vec<IpNet>,
    origins: Origins,
    /// What a browser sees at `/`, on nodes of the demo.
    page: Option<Page>,
    draining: AtomicBool,
    /// Whether the node hears nothing of Redis.
    cut_off: AtomicBool,
    warned: AtomicBool,
    waiting: Arc<Waiting>,
    /// There once Redis is.
    served: OnceLock<(Arc<App>, SocketService)>,
}

/// A handshake that may go on.
#[derive(Debug, Clone)]
pub struct Admission {
    address: ClientAddress,
    place: Option<Arc<SessionPlace>>,
}

/// What the beginning of a connection is worth.
#[derive(Debug)]
pub enum Verdict {
    /// The head goes on.
    Incomplete,
    /// No request of HTTP/1.
    NoHttp,
    /// Not a new handshake: its service decides.
    NotJudged,
    /// A handshake that may go on.
    Admitted(Admission),
    /// A handshake that may not, and the whole answer.
    Refused(Vec<u8>),
}

/// Headers of a request that may be judged before hyper sees it: as many as hyper takes.
const HEADERS_MAX: usize = 100;

impl Front {
    /// A front that refuses handshakes until [`Self::serve`].
    pub fn new(config: &Config, waiting: Arc<Waiting>) -> Self {
        Self(Arc::new(State {
            waiting,
            trusted: config.trusted_proxies.to_vec(),
            origins: config.cors_origins.clone(),
            page: Page::new(config),
            draining: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            warned: AtomicBool::new(false),
            served: OnceLock::new(),
        }))
    }

    /// From now on handshakes are let through.
    pub fn serve(&self, app: Arc<App>, service: SocketService) {
        let _already = self.0.served.set((app, service));
    }

    /// Judges the first bytes of a connection that comes from no proxy, which is all that a refused handshake costs.
    pub fn judge(&self, head: &[u8], conn: &Arc<Conn>) -> Verdict {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Verdict::Incomplete,
            Err(_) => return Verdict::NoHttp,
        }
        let (Some("GET"), Some(target)) = (request.method, request.path) else {
            return Verdict::NotJudged;
        };
        let query = target.split_once('?').map_or("", |(_, query)| query);
        if !target.starts_with(SOCKET_PATH) || query_value(query, "sid").is_some() {
            return Verdict::NotJudged;
        }
        let mut headers = HeaderMap::new();
        for header in &*request.headers {
            let named = JUDGED_HEADERS
                .into_iter()
                .find(|name| header.name.eq_ignore_ascii_case(name.as_str()));
            if let (Some(name), Ok(value)) = (named, HeaderValue::from_bytes(header.value)) {
                headers.append(name, value);
            }
        }
        let cors = self.0.cors(&headers);
        match self.0.handshake(&headers, None, conn, cors.is_none()) {
            Ok(admission) => Verdict::Admitted(admission),
            Err(refusal) => {
                let mut response = refusal.response();
                if let Some(Some(origin)) = cors {
                    add_cors(response.headers_mut(), origin);
                }
                Verdict::Refused(refusal::to_bytes(&response))
            }
        }
    }

    /// From now on handshakes are sent to other nodes.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether handshakes are refused because the node hears nothing of Redis.
    pub fn set_cut_off(&self, cut_off: bool) {
        self.0.cut_off.store(cut_off, Ordering::Release);
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move { Ok(state.answer(request).await) })
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if !request.uri().path().starts_with(SOCKET_PATH) {
            let page = self.page.as_ref().and_then(|page| page.answer(&request));
            return page.unwrap_or_else(|| {
                let refusal = Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such page");
                refusal.response().map(Body::from)
            });
        }
        let cors = self.cors(request.headers());
        let mut response = match self.socket_request(request, cors.is_none()).await {
            Ok(response) => response,
            Err(refusal) => refusal.response().map(Body::from),
        };
        if let Some(Some(origin)) = cors {
            add_cors(response.headers_mut(), origin);
        }
        response
    }

    /// `None`: the origin is refused. `Some(None)`: no cross-origin request. `Some(origin)`: allowed across origins.
    fn cors(&self, headers: &HeaderMap) -> Option<Option<HeaderValue>> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Some(None);
        };
        let text = origin.to_str().ok()?.trim_end_matches('/').to_ascii_lowercase();
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let same = text
            .split_once("://")
            .is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host));
        if same {
            return Some(None);
        }
        let allowed = match &self.origins {
            Origins::Any => true,
            Origins::List(list) => list.contains(&text),
            Origins::Same => false,
        };
        allowed.then(|| Some(origin.clone()))
    }

    async fn socket_request(
        &self,
        mut request: Request<Incoming>,
        bad_origin: bool,
    ) -> Result<Response<Body>, Refusal> {
        if request.method() == Method::OPTIONS && !bad_origin {
            return Ok(Response::builder()
                .status(StatusCode::NO_CONTENT)
                .body(Body::empty())
                .unwrap_or_default());
        }
        let extensions = request.extensions_mut();
        let admitted = extensions.remove::<Admission>();
        let proxy = extensions.get::<ProxyHeader>().copied();
        let Some(conn) = extensions.get::<Arc<Conn>>().cloned() else {
            return Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "internal error",
            ));
        };
        let query = request.uri().query().unwrap_or_default();
        let websocket = query_value(query, "transport") == Some("websocket");
        let sid = query_value(query, "sid").map(str::to_owned);
        let Some(sid) = sid else {
            let admission = match admitted {
                Some(admission) => admission,
                None => self.handshake(request.headers(), proxy, &conn, bad_origin)?,
            };
            let (_, service) = self.served()?;
            let client = admission.client(conn.clone(), websocket);
            let Ok(response) = Service::call(service, slim(request, client)).await;
            expect_switch(&response, &conn);
            return Ok(response.map(Body::new));
        };
        if bad_origin {
            return Err(Refusal::foreign_origin());
        }
        let (app, service) = self.served()?;
        let refuse = |code, message| Err(Refusal::new(StatusCode::BAD_REQUEST, code, message));
        let refuse_closed = || refuse("session_closed", "this session was closed; connect again");
        let Ok(sid) = Sid::from_str(&sid) else {
            return refuse("bad_request", "unknown session");
        };
        if app.sockets.contains_key(&sid) {
            conn.settle();
        }
        if app.transports.is_killed(sid) {
            return refuse_closed();
        }
        if websocket && !app.transports.claim(sid, conn.clone()) {
            return refuse("bad_request", "this session has its connection")
                .map_err(|refusal| refusal.after(RETRY_AFTER));
        }
        let address = self.address(request.headers(), proxy, &conn);
        let client = Admission { address, place: None }.client(conn.clone(), websocket);
        let Ok(response) = Service::call(service, slim(request, client)).await;
        expect_switch(&response, &conn);
        // The poll that waited while its session was closed would hear a `disconnect`, upon which JS clients stay away
        // for good. They come back from a failed one, as from a websocket that closes.
        if !websocket && app.transports.is_killed(sid) {
            return refuse_closed();
        }
        Ok(response.map(Body::new))
    }

    /// What is there once Redis is.
    fn served(&self) -> Result<&(Arc<App>, SocketService), Refusal> {
        let starting = || Refusal::unavailable("auth_unavailable", "the node is starting");
        self.served.get().ok_or_else(starting)
    }

    fn address(&self, headers: &HeaderMap, proxy: Option<ProxyHeader>, conn: &Conn) -> ClientAddress {
        let address = client_address(conn.peer.ip(), proxy, headers, &self.trusted);
        if address.undeclared_proxy && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(peer = %conn.peer, "a private peer sends X-Forwarded-For and TRUSTED_PROXIES is not set: every client behind it counts as this peer, and it is never blocked; set TRUSTED_PROXIES");
        }
        address
    }

    /// Whether a request for a new session may go on.
    fn handshake(
        &self,
        headers: &HeaderMap,
        proxy: Option<ProxyHeader>,
        conn: &Arc<Conn>,
        bad_origin: bool,
    ) -> Result<Admission, Refusal> {
        if bad_origin {
            // No strike: any web page can cause this in a visitor's browser.
            return Err(Refusal::foreign_origin());
        }
        let (app, _) = self.served()?;
        let address = self.address(headers, proxy, conn);
        let place = self.admit(app, address, conn)?;
        Ok(Admission { address, place })
    }

    /// Whether a new handshake may go on. Nobody is asked: a blocked address, or a flood, costs no call of Redis.
    fn admit(&self, app: &App, address: ClientAddress, conn: &Arc<Conn>) -> Result<Option<Arc<SessionPlace>>, Refusal> {
        let refuse = |refusal, reason| {
            app.metrics.refusals_total.inc([reason]);
            Err(refusal)
        };
        let limited = |wait| {
            let message = "too many connections from your network; try again later";
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).after(wait)
        };
        if self.draining.load(Ordering::Acquire) {
            let message = "this node is going away; connect again";
            return refuse(Refusal::unavailable("draining", message), "draining");
        }
        match app.guard.screen(address) {
            Entry::Admitted => {}
            Entry::Banned(left) => {
                let banned = Refusal::new(StatusCode::FORBIDDEN, "blocked", "you're banned").after(left);
                return refuse(banned, "blocked");
            }
            Entry::Limited(rule, wait) => return refuse(limited(wait), rule.as_str()),
        }
        if self.cut_off.load(Ordering::Acquire) {
            let message = "this node has no connection to the others; try again";
            return refuse(Refusal::unavailable("unavailable", message), "unavailable");
        }
        if !app.redis.is_reachable() {
            let message = "the service is not available right now";
            return refuse(Refusal::unavailable("auth_unavailable", message), "unavailable");
        }
        if app.guard.is_exempt(address) {
            return Ok(None);
        }
        let place = if self.waiting.enter(address.ip, conn) {
            self.waiting.begin(address.ip)
        } else {
            None
        };
        match place {
            Some(place) => Ok(Some(Arc::new(place))),
            None => refuse(limited(RETRY_AFTER), Rule::Unauthenticated.as_str()),
        }
    }
}

impl Admission {
    fn client(self, conn: Arc<Conn>, websocket: bool) -> ClientInfo {
        ClientInfo {
            address: self.address,
            conn,
            websocket,
            place: self.place,
        }
    }
}

/// Tells the connection when its next response makes a websocket of it.
fn expect_switch<B>(response: &Response<B>, conn: &Conn) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        conn.expect_websocket();
    }
}

fn add_cors(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("content-type"),
    );
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The request with fresh copies of the little that is needed. Header values and the URI are slices of hyper's read
/// buffer, and the socket keeps them: without this, each would hold 8 to 16 KiB for its whole life.
fn slim(request: Request<Incoming>, client: ClientInfo) -> Request<Incoming> {
    let (mut parts, body) = request.into_parts();
    let mut slim = Request::new(body);
    *slim.method_mut() = parts.method;
    *slim.version_mut() = parts.version;
    if let Ok(uri) = Uri::from_str(&parts.uri.to_string()) {
        *slim.uri_mut() = uri;
    }
    // Most requests have one of them; the map's usual first size is six.
    *slim.headers_mut() = HeaderMap::with_capacity(1);
    for name in KEPT_HEADERS {
        if let Some(value) = parts
            .headers
            .get(&name)
            .and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok())
        {
            slim.headers_mut().insert(name, value);
        }
    }
    if let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() {
        slim.extensions_mut().insert(upgrade);
    }
    slim.extensions_mut().insert(client);
    slim
}
