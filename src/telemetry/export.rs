//! The way of spans to a collector: a bounded queue, a thread of its own, and what becomes of each in the metrics.
//!
//! A collector that is slow or away costs spans, never time: they are dropped where the queue is full, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use percent_encoding::percent_decode_str;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};

use super::metrics::Declared;
use crate::config::{Config, ConfigError, OtlpProtocol};

/// Spans that wait for the collector: a minute of a node's at a hundred a second, some megabytes.
const QUEUE_MAX: usize = 8192;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others before it is sent.
const DELAY: Duration = Duration::from_secs(2);
/// How long the last spans may take when the process stops.
const FLUSH_MAX: Duration = Duration::from_secs(3);

/// What the metrics here say.
pub const DECLARED: &[Declared] = &[Declared {
    name: "roomcast_trace_spans_total",
    kind: "counter",
    help: "Spans of traces by what became of them: taken by the collector, `dropped` because too many waited for it, or `failed` \
           because it did not take them. Of the whole process.",
    labels: &[("result", || vec!["exported", "dropped", "failed"])],
    buckets: &[],
    query: "sum by (result) (rate(roomcast_trace_spans_total{result!=\"exported\"}[5m]))",
}];

/// What became of the spans of this process.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// A layer that does nothing but carry the counts: the subscriber is the one thing that nodes of a process share.
#[derive(Clone)]
pub struct Books(Arc<Counts>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Books {}

/// The traces of this process, to be flushed when it stops.
#[derive(Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    books: Books,
}

impl Traces {
    /// Starts the export; `None` where no collector is set.
    pub fn start(config: &Config) -> Result<Option<Self>, ConfigError> {
        let Some(endpoint) = &config.otlp_endpoint else {
            return Ok(None);
        };
        let books = Books(Arc::default());
        let exporter = Counting {
            inner: exporter(config, endpoint.as_str())?,
            counts: books.0.clone(),
            failing: AtomicBool::new(false),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let processor = Bounded {
            inner: BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
            counts: books.0.clone(),
        };
        let provider = SdkTracerProvider::builder()
            // What reaches it was chosen before: see `telemetry::trace`.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource(config)?)
            .with_span_processor(processor)
            .build();
        Ok(Some(Self { provider, books }))
    }

    /// What makes the spans.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("roomcast")
    }

    /// The counts, as a layer.
    pub fn books(&self) -> Books {
        self.books.clone()
    }

    /// Sends what waits, but not for long.
    pub async fn flush(self) {
        let shutdown = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_MAX));
        if !matches!(tokio::time::timeout(FLUSH_MAX * 2, shutdown).await, Ok(Ok(Ok(())))) {
            tracing::warn!("the last spans did not reach the collector");
        }
    }
}

fn bad(setting: &'static str, problem: impl Into<String>, cure: &'static str) -> ConfigError {
    ConfigError::new(setting, problem, cure)
}

fn exporter(config: &Config, endpoint: &str) -> Result<opentelemetry_otlp::SpanExporter, ConfigError> {
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let headers = match &config.otlp_headers {
        Some(headers) => pairs("OTEL_EXPORTER_OTLP_HEADERS", headers.expose())?,
        None => Vec::new(),
    };
    let built = match config.otlp_protocol {
        OtlpProtocol::Http => builder
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_timeout(*config.otlp_timeout)
            .with_headers(headers.into_iter().collect())
            .build(),
        OtlpProtocol::Grpc => {
            let read = |(name, value): &(String, String)| Some((name.parse().ok()?, value.parse().ok()?));
            let headers: Option<http::HeaderMap> = headers.iter().map(read).collect();
            let headers = headers.ok_or_else(|| {
                bad(
                    "OTEL_EXPORTER_OTLP_HEADERS",
                    "has no usable headers",
                    "use name=value,name=value",
                )
            })?;
            let metadata = opentelemetry_otlp::tonic_types::metadata::MetadataMap::from_headers(headers);
            builder
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(*config.otlp_timeout)
                .with_metadata(metadata)
                .build()
        }
    };
    built.map_err(|error| {
        bad(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("cannot be used ({error})"),
            "use the address of an OTLP collector, such as http://collector:4318, or leave it unset",
        )
    })
}

/// Reads `name=value,…`, percent-encoded as the standard has it. The error does not repeat values: they may be secret.
fn pairs(setting: &'static str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (name, value) = item.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            (!name.trim().is_empty()).then(|| (name.trim().to_owned(), value.into_owned()))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| bad(setting, "is no list of pairs", "use name=value,name=value"))
}

fn resource(config: &Config) -> Result<Resource, ConfigError> {
    let given = pairs("OTEL_RESOURCE_ATTRIBUTES", &config.otel_resource)?;
    let instance = KeyValue::new("service.instance.id", format!("{:016x}", rand::random::<u64>()));
    Ok(Resource::builder_empty()
        .with_attributes([instance, KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))])
        .with_attributes(given.into_iter().map(|(name, value)| KeyValue::new(name, value)))
        .with_service_name(config.otel_service_name.clone())
        .build())
}

/// Lets no more spans wait than the queue has room for.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    counts: Arc<Counts>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.counts.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what the collector takes, and says once when it stops doing so.
#[derive(Debug)]
struct Counting<E> {
    inner: E,
    counts: Arc<Counts>,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
        let result = self.inner.export(batch).await;
        let counter = if result.is_ok() {
            &self.counts.exported
        } else {
            &self.counts.failed
        };
        counter.fetch_add(count as u64, Ordering::Relaxed);
        match (&result, self.failing.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, "the collector takes no traces: they are lost until it does"),
            (Ok(()), true) => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Shows the counts of the process's subscriber.
struct Shown(Vec<Desc>);

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let [declared] = DECLARED else { return Vec::new() };
        let Ok(counters) = IntCounterVec::new(Opts::new(declared.name, declared.help), &["result"]) else {
            return Vec::new();
        };
        let counts = tracing::dispatcher::get_default(|dispatch| {
            let books = dispatch.downcast_ref::<Books>();
            let read = |counts: &Counts| {
                [&counts.exported, &counts.dropped, &counts.failed].map(|counter| counter.load(Ordering::Relaxed))
            };
            books.map_or([0; 3], |books| read(&books.0))
        });
        for (result, count) in ["exported", "dropped", "failed"].into_iter().zip(counts) {
            counters.with_label_values(&[result]).inc_by(count);
        }
        counters.collect()
    }
}

/// Adds the counts to a registry.
pub(super) fn register(registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
    let describe = |declared: &Declared| {
        let labels = vec!["result".to_owned()];
        Desc::new(
            declared.name.to_owned(),
            declared.help.to_owned(),
            labels,
            Default::default(),
        )
    };
    let descriptions = DECLARED.iter().map(describe).collect::<Result<_, _>>()?;
    registry.register(Box::new(Shown(descriptions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_the_standard_writes_them() {
        let read = pairs("X", "a=1, b = two%20words ,c=x=y,").unwrap();
        let expected = [("a", "1"), ("b", "two words"), ("c", "x=y")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let error = pairs("X", "s3cret").unwrap_err().to_string();
        assert!(error.starts_with('X') && !error.contains("s3cret"), "{error}");
        assert!(pairs("X", "=1").is_err());
    }
}
