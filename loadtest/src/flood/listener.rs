//! The measure: a listener that answers every request with 403 and closes, and knows nothing else.

use std::convert::Infallible;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// How long a request head may take; what a careful operator sets.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// When there are no descriptors, others must end first.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .keep_alive(false);
            // An attacker's connection may end in any way.
            let _ = http.serve_connection(TokioIo::new(stream), service_fn(refuse)).await;
        });
    }
}

async fn refuse(_request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let mut response = Response::new("forbidden".to_owned());
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
        .headers_mut()
        .insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    Ok(response)
}
