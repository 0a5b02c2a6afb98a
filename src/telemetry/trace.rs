//! Traces: a span for each step of a message or a question, joined over processes by the W3C context that travels with it.
//!
//! Whether an event is traced is decided before anything is done for it, so one that is not costs a random number, and
//! nothing at all where no collector is set. What follows is traced because its context came along: in the log entry, in the
//! message on the room's channel and in the job, never in what clients get. Spans carry names, numbers and the codes of
//! results; no token, no text of a message.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, Value};
use tracing::field::Empty;
use tracing::{Span, error_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::config::{Config, TraceSampler};

/// The target of every span here, by which they are told from what libraries trace.
pub const TARGET: &str = "roomcast::trace";

/// Decides which events of clients are traced.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    /// Of 2^64 events so many, 0 = none; `u64::MAX` = all.
    threshold: u64,
}

impl Sampler {
    /// The sampler of the settings; without a collector it chooses nothing.
    pub fn new(config: &Config) -> Self {
        let ratio = match config.traces_sampler {
            _ if config.otlp_endpoint.is_none() => 0.0,
            TraceSampler::AlwaysOff | TraceSampler::ParentOff => 0.0,
            TraceSampler::AlwaysOn | TraceSampler::ParentOn => 1.0,
            TraceSampler::Ratio | TraceSampler::ParentRatio => f64::from(config.traces_sampler_arg),
        };
        Self {
            // A cast beyond the range gives the limit.
            threshold: (ratio * u64::MAX as f64) as u64,
        }
    }

    /// The root of a trace for an event of a client, or no span.
    pub fn event(self, name: &'static str) -> Span {
        if self.threshold == 0 || rand::random::<u64>() > self.threshold {
            return Span::none();
        }
        let span = error_span!(target: TARGET, parent: None, "event", otel.name = name, otel.kind = "server", trace_id = Empty);
        started(span)
    }
}

/// A step that follows from something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The script that stores an event and publishes it.
    Post,
    /// From the bus connection to the end of the fan-out on one node.
    Deliver,
    /// The fan-out to the sockets.
    Emit,
    /// From a question's outbox into the queue.
    Queue,
    /// A worker's attempt at an answer.
    Answer,
    /// The call of the model, to its last token.
    Model,
    /// A piece of a reply told to the room.
    Delta,
}

/// The names that spans have must be written where they are made.
macro_rules! step {
    ($step:expr, $parent:expr) => {
        match $step {
            Step::Post => step!(@ $parent, "post", "producer"),
            Step::Deliver => step!(@ $parent, "deliver", "consumer"),
            Step::Emit => step!(@ $parent, "emit", "internal"),
            Step::Queue => step!(@ $parent, "queue", "consumer"),
            Step::Answer => step!(@ $parent, "answer", "consumer"),
            Step::Model => step!(@ $parent, "model", "client"),
            Step::Delta => step!(@ $parent, "delta", "producer"),
        }
    };
    (@ $parent:expr, $name:literal, $kind:literal) => {
        error_span!(target: TARGET, parent: $parent, $name, otel.kind = $kind, trace_id = Empty)
    };
}

/// A step of a trace that came from elsewhere, by its W3C context; no span where that is empty: it is not traced.
pub fn continued(context: &str, step: Step) -> Span {
    let Some(parent) = parse(context) else {
        return Span::none();
    };
    let span = step!(step, None);
    match span.set_parent(Context::new().with_remote_span_context(parent)) {
        Ok(()) => started(span),
        // Nothing is exported here; the context goes on to who may.
        Err(_) => Span::none(),
    }
}

/// A step within this process; no span where the parent is none.
pub fn child(parent: &Span, step: Step) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    started(step!(step, parent))
}

/// As [`child`], of the step that the running task is in.
pub fn within(step: Step) -> Span {
    child(&Span::current(), step)
}

/// Gives the span its ids, and shows that of its trace in its log lines.
fn started(span: Span) -> Span {
    let context = span.context();
    let ids = context.span().span_context().clone();
    if ids.is_valid() {
        span.record("trace_id", tracing::field::display(ids.trace_id()));
    }
    span
}

/// Notes something about a step.
pub fn note(span: &Span, name: &'static str, value: impl Into<Value>) {
    if !span.is_disabled() {
        span.set_attribute(name, value);
    }
}

/// Notes that something happened within a step.
pub fn mark(span: &Span, name: &'static str) {
    if !span.is_disabled() {
        span.add_event(name, Vec::new());
    }
}

/// The W3C context by which others continue a span; `or` where there is none: it goes on as it came.
pub fn context_of(span: &Span, or: &str) -> String {
    if span.is_disabled() {
        return or.to_owned();
    }
    let context = span.context();
    let ids = context.span().span_context().clone();
    if !ids.is_sampled() {
        return or.to_owned();
    }
    format!("00-{}-{}-01", ids.trace_id(), ids.span_id())
}

/// Reads a W3C context that says "sampled".
fn parse(context: &str) -> Option<SpanContext> {
    let mut parts = context.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != "00" || trace.len() != 32 || span.len() != 16 || flags != "01" || parts.next().is_some() {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn sampler(pairs: &[(&'static str, &str)]) -> Sampler {
        let required = [
            ("AUTH_URL", "http://127.0.0.1:1"),
            ("API_URL", "http://127.0.0.1:1"),
            ("VISION_APP_INFO", "Vision"),
        ];
        Sampler::new(&Config::read(&Source::from_pairs(required).with(pairs.iter().copied())).unwrap())
    }

    #[test]
    fn the_share_of_traced_events_is_that_of_the_settings() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        let ratio = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        assert_eq!(sampler(&[]).threshold, 0, "without a collector there is nobody to tell");
        assert_eq!(sampler(&[endpoint]).threshold, u64::MAX);
        assert_eq!(sampler(&[endpoint, ("OTEL_TRACES_SAMPLER", "always_off")]).threshold, 0);
        let hundredth = sampler(&[endpoint, ratio, ("OTEL_TRACES_SAMPLER_ARG", "0.01")]).threshold;
        assert!((hundredth as f64 / u64::MAX as f64 - 0.01).abs() < 1e-6);
    }

    #[test]
    fn only_a_whole_context_that_says_sampled_is_continued() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(parse(good).unwrap().span_id().to_string(), "00f067aa0ba902b7");
        for bad in [
            "",
            "-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-xbf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn without_a_collector_there_are_no_spans() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = continued(good, Step::Answer);
        assert!(span.is_disabled() && child(&span, Step::Model).is_disabled());
        assert_eq!(context_of(&span, good), good, "it goes on as it came");
    }
}
