//! Log lines: one subscriber for the process, the only thing in it that is shared by several nodes.

use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::export::Traces;
use super::trace::TARGET;

use crate::config::{Config, ConfigError, LogFormat};

/// Starts logging to standard error, and traces where a collector is set; a second call, or a subscriber of somebody else,
/// stays as it is.
pub fn init(config: &Config) -> Result<Option<Traces>, ConfigError> {
    let traces = Traces::start(config)?;
    let subscriber = subscriber(&config.log, config.log_format, std::io::stderr, traces.as_ref())?;
    // The error means that there is a subscriber already, which is what a second node in the process finds.
    Ok(subscriber.try_init().ok().and(traces))
}

/// As [`init`], for roles that need no other setting, and are not traced.
pub fn init_with(filter: &str, format: LogFormat) -> Result<(), ConfigError> {
    let subscriber = subscriber(filter, format, std::io::stderr, None)?;
    let _ = subscriber.try_init();
    Ok(())
}

fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    writer: W,
    traces: Option<&Traces>,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, ConfigError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let parsed = EnvFilter::try_new(filter).map_err(|error| {
        ConfigError::new(
            "ROOMCAST_LOG",
            format!("has the bad value `{filter}` ({error})"),
            "use a filter such as info or roomcast=debug,info",
        )
    })?;
    // Its own filter: what is logged and what is traced are two decisions. Log lines stay out of traces, and so do the spans
    // of libraries. Each layer must name a level: if one does not, every library makes its lines of the finest level, a few for
    // each packet, only to have them thrown away.
    let spans = traces.map(|traces| {
        let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer());
        let layer = layer
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false);
        let layer = layer.with_level(false).with_target(false);
        let wanted = filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET);
        layer.with_filter(wanted.with_max_level_hint(LevelFilter::ERROR))
    });
    let registry = tracing_subscriber::registry()
        .with(spans)
        .with(traces.map(|traces| traces.books().with_filter(LevelFilter::OFF)));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(writer);
    Ok(match format {
        LogFormat::Text => Box::new(registry.with(layer.with_filter(parsed))),
        LogFormat::Json => Box::new(registry.with(layer.json().flatten_event(true).with_filter(parsed))),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Source;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn config(pairs: &[(&'static str, &str)]) -> Config {
        let required = [
            ("AUTH_URL", "http://127.0.0.1:1"),
            ("API_URL", "http://127.0.0.1:1"),
            ("VISION_APP_INFO", "Vision"),
        ];
        Config::read(&Source::from_pairs(required).with(pairs.iter().copied())).unwrap()
    }

    fn log_with(pairs: &[(&'static str, &str)]) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = config(pairs);
        let subscriber = subscriber(&config.log, config.log_format, move || writer.clone(), None).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(rooms = 2, "joined");
            tracing::debug!("hidden");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_filter_and_the_format_come_from_the_settings() {
        let json: serde_json::Value = serde_json::from_str(&log_with(&[("ROOMCAST_LOG_FORMAT", "json")])).unwrap();
        assert_eq!(
            (&json["message"], &json["rooms"], &json["level"]),
            (&"joined".into(), &2.into(), &"INFO".into())
        );
        assert!(log_with(&[]).contains("joined"));
        assert_eq!(log_with(&[("ROOMCAST_LOG", "roomcast=error")]), "");
    }

    #[test]
    fn traces_do_not_make_libraries_log_more() {
        let config = config(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]);
        let traces = Traces::start(&config).unwrap();
        assert!(traces.is_some());
        let subscriber = subscriber("info", LogFormat::Text, std::io::sink, traces.as_ref()).unwrap();
        assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::INFO));
        let books = tracing::Dispatch::new(subscriber);
        assert!(
            books.downcast_ref::<crate::telemetry::export::Books>().is_some(),
            "the counts are found"
        );
    }

    #[test]
    fn a_bad_filter_names_the_setting_and_a_second_start_is_harmless() {
        let error = init(&config(&[("ROOMCAST_LOG", "roomcast=loud")]))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("ROOMCAST_LOG"), "{error}");
        init(&config(&[])).unwrap();
        init(&config(&[])).unwrap();
    }
}
