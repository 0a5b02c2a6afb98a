//! A collector: what it is sent, by HTTP or gRPC, as a list of spans.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use tokio::net::TcpListener;

use crate::support::until;

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty: it is a root.
    pub parent: String,
    /// Names of what happened within it.
    pub events: Vec<String>,
    /// The process it came from.
    pub instance: String,
    /// What else is said of that process.
    pub resource: String,
    attributes: Vec<(String, String)>,
}

impl Seen {
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.attributes.iter().any(|(known, is)| known == name && is == value)
    }
}

/// What was sent so far.
#[derive(Default)]
struct Store {
    spans: Mutex<Vec<Seen>>,
    tenant: Mutex<Option<String>>,
}

/// A collector on a port of its own.
pub struct Collector {
    pub url: String,
    store: Arc<Store>,
}

impl Collector {
    pub async fn over_http() -> Self {
        let (listener, collector) = Self::new().await;
        let router = axum::Router::new()
            .route("/v1/traces", post(take))
            .with_state(collector.store.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    pub async fn over_grpc() -> Self {
        let (listener, collector) = Self::new().await;
        let service = TraceServiceServer::new(Grpc(collector.store.clone()));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        });
        collector
    }

    async fn new() -> (TcpListener, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let store = Arc::default();
        (listener, Self { url, store })
    }

    /// Waits for a trace that is as wanted, and returns its spans.
    pub async fn trace(&self, what: &str, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let found = Mutex::new(Vec::new());
        until(what, Duration::from_secs(20), || async {
            let all = self.all();
            let mut traces: Vec<&str> = all.iter().map(|span| span.trace.as_str()).collect();
            traces.sort_unstable();
            traces.dedup();
            let of = |trace: &str| -> Vec<Seen> { all.iter().filter(|span| span.trace == trace).cloned().collect() };
            let hit = traces.into_iter().map(of).find(|trace| wanted(trace));
            let is_there = hit.is_some();
            *found.lock().unwrap() = hit.unwrap_or_default();
            is_there
        })
        .await;
        found.into_inner().unwrap()
    }

    pub fn all(&self) -> Vec<Seen> {
        self.store.spans.lock().unwrap().clone()
    }

    /// What the header `x-tenant` said.
    pub fn tenant(&self) -> Option<String> {
        self.store.tenant.lock().unwrap().clone()
    }
}

async fn take(State(store): State<Arc<Store>>, body: Bytes) -> Vec<u8> {
    store.add(ExportTraceServiceRequest::decode(body).unwrap());
    ExportTraceServiceResponse::default().encode_to_vec()
}

struct Grpc(Arc<Store>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let tenant = request.metadata().get("x-tenant");
        *self.0.tenant.lock().unwrap() = tenant.map(|value| value.to_str().unwrap().to_owned());
        self.0.add(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Store {
    fn add(&self, request: ExportTraceServiceRequest) {
        for resource in request.resource_spans {
            let of_process = pairs(resource.resource.unwrap_or_default().attributes);
            let instance = of_process.iter().find(|(name, _)| name == "service.instance.id");
            let instance = instance.map(|(_, value)| value.clone()).unwrap();
            let said: Vec<String> = of_process
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.spans.lock().unwrap().push(Seen {
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    events: span.events.into_iter().map(|event| event.name).collect(),
                    instance: instance.clone(),
                    resource: said.join(","),
                    attributes: pairs(span.attributes),
                });
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn pairs(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|pair| (pair.key, text(pair.value)))
        .collect()
}
