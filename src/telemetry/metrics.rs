//! Every metric, declared once with its help; several nodes in one process each have their own.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// Bucket limits of a post: Redis on the same machine takes a quarter of a millisecond, a broken one its timeout.
const POST_SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// The events a client can send; what is not among them is not counted by name.
pub const EVENTS: [&str; 11] = [
    "refreshToken",
    "syncRooms",
    "join",
    "message",
    "editMessage",
    "deleteMessage",
    "loadMoreMessages_for_room",
    "deleteroom",
    "leave",
    "gpt:cancel",
    "unknown",
];

/// Counters that share a name and differ in `N` labels, whose values must come from a fixed set.
#[derive(Debug, Clone)]
pub struct Labelled<const N: usize>(IntCounterVec);

impl<const N: usize> Labelled<N> {
    /// Counts one.
    pub fn inc(&self, labels: [&'static str; N]) {
        self.add(labels, 1);
    }

    /// Counts `count`.
    pub fn add(&self, labels: [&'static str; N], count: u64) {
        self.0.with_label_values(&labels).inc_by(count);
    }

    /// Shows the counter at 0 before it first counts: a rate needs the start.
    pub fn declare(&self, labels: [&'static str; N]) {
        self.add(labels, 0);
    }

    /// The count so far.
    pub fn get(&self, labels: [&'static str; N]) -> u64 {
        self.0.with_label_values(&labels).get()
    }
}

/// Declares the metrics: `field: Type = builder("name", arguments)`, with the help as its doc comment.
macro_rules! metrics {
    ($( #[doc = $help:literal] $field:ident : $ty:ty = $build:ident ( $name:literal $(, $argument:expr)* ); )+) => {
        /// The metrics of one node or worker; share them in an `Arc`.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $( #[doc = $help] pub $field: $ty, )+
        }

        impl Metrics {
            /// Registers every metric at 0 in a registry of its own; fails only on a bad declaration above.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                build_info(&registry)?;
                Ok(Self {
                    $( $field: $build(&registry, $name, $help.trim() $(, $argument)*)?, )+
                    registry,
                })
            }
        }
    };
}

metrics! {
    /// Sockets connected now.
    connections: IntGauge = gauge("roomcast_connections");
    /// Handshakes by result.
    handshakes_total: Labelled<1> = labelled("roomcast_handshakes_total", ["result"], &[["connected"], ["refreshed"], ["blocked"], ["rate_limited"], ["auth_unavailable"]]);
    /// Events of clients by event and result.
    events_total: Labelled<2> = labelled("roomcast_events_total", ["event", "result"], &EVENTS.map(|event| [event, "ok"]));
    /// Room events handed to sockets.
    deliveries_total: IntCounter = counter("roomcast_deliveries_total");
    /// Room events received on the bus.
    bus_messages_received_total: IntCounter = counter("roomcast_bus_messages_received_total");
    /// Times the bus receiver lost messages because it lagged.
    bus_lagged_total: IntCounter = counter("roomcast_bus_lagged_total");
    /// Times the bus was subscribed anew.
    bus_resubscribes_total: IntCounter = counter("roomcast_bus_resubscribes_total");
    /// Rooms found behind their log without a message having told so.
    rooms_behind_total: IntCounter = counter("roomcast_rooms_behind_total");
    /// Holes in a room's sequence that were filled from its log.
    holes_repaired_total: IntCounter = counter("roomcast_holes_repaired_total");
    /// Sockets that do not read fast enough now.
    lagging_sockets: IntGauge = gauge("roomcast_lagging_sockets");
    /// Posts to room logs by result.
    posts_total: Labelled<1> = labelled("roomcast_posts_total", ["result"], &[["ok"], ["dup"], ["unavailable"], ["uncertain"]]);
    /// How long a post to a room's log takes.
    post_duration_seconds: Histogram = histogram("roomcast_post_duration_seconds", POST_SECONDS);
    /// Redis calls that failed.
    redis_errors_total: IntCounter = counter("roomcast_redis_errors_total");
    /// Bans in force, as far as this node knows.
    bans: IntGauge = gauge("roomcast_bans");
    /// Bans set by this node, by rule.
    blocks_total: Labelled<1> = labelled("roomcast_blocks_total", ["reason"], &[]);
    /// What rules in shadow mode would have refused or banned, by rule.
    shadowed_total: Labelled<1> = labelled("roomcast_shadowed_total", ["rule"], &[]);
    /// Whether the guard cannot ask Redis: limits and bans known here hold, handshakes are refused.
    guard_degraded: IntGauge = gauge("roomcast_guard_degraded");
    /// Connections that have not said who they are yet.
    unauthenticated: IntGauge = gauge("roomcast_unauthenticated_connections");
    /// Handshakes refused before the upgrade, and events beyond their rate, by reason.
    refusals_total: Labelled<1> = labelled("roomcast_refusals_total", ["reason"], &[["blocked"], ["unavailable"], ["handshakes"], ["events"]]);
    /// Connections cut by reason.
    cuts_total: Labelled<1> = labelled("roomcast_cuts_total", ["reason"], &[]);
    /// Questions to the model that have ended, by result.
    gpt_replies_total: Labelled<1> = labelled("roomcast_gpt_replies_total", ["result"], &[["ok"], ["partial"]]);
    /// Tokens of the model by kind.
    gpt_tokens_total: Labelled<1> = labelled("roomcast_gpt_tokens_total", ["kind"], &[["prompt"], ["completion"]]);
    /// Whether an operator has paused the queue of questions: this worker takes none.
    gpt_paused: IntGauge = gauge("roomcast_gpt_paused");
    /// Events that wait to be archived.
    archive_backlog: IntGauge = gauge("roomcast_archive_backlog_events");
    /// Age of the oldest event that waits to be archived.
    archive_lag_seconds: IntGauge = gauge("roomcast_archive_lag_seconds");
    /// Events archived.
    archived_total: IntCounter = counter("roomcast_archived_events_total");
    /// Sockets of dead nodes whose traces were removed.
    reaped_sockets_total: IntCounter = counter("roomcast_reaped_sockets_total");
    /// Calls of the REST services by call and result.
    upstream_requests_total: Labelled<2> = labelled("roomcast_upstream_requests_total", ["call", "result"], &[]);
}

impl Metrics {
    /// Every metric in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be encoded");
                String::new()
            })
    }
}

fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register(registry, IntGauge::new(name, help)?)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    register(registry, IntCounter::new(name, help)?)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options)?)
}

fn labelled<const N: usize>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: [&str; N],
    declared: &[[&'static str; N]],
) -> Result<Labelled<N>, prometheus::Error> {
    let counters = Labelled(register(registry, IntCounterVec::new(Opts::new(name, help), &labels)?)?);
    for values in declared {
        counters.declare(*values);
    }
    Ok(counters)
}

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let options = Opts::new("roomcast_build_info", "The running build; always 1.")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    register(registry, IntGauge::with_opts(options)?)?.set(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_start_at_zero_and_carry_their_help() {
        let text = Metrics::new().unwrap().render();
        for line in [
            "# HELP roomcast_connections Sockets connected now.",
            "roomcast_connections 0",
            "roomcast_deliveries_total 0",
            "roomcast_handshakes_total{result=\"connected\"} 0",
            "roomcast_events_total{event=\"join\",result=\"ok\"} 0",
            "roomcast_post_duration_seconds_bucket{le=\"0.00025\"} 0",
            "roomcast_post_duration_seconds_bucket{le=\"2.5\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "`{line}` is not in:\n{text}");
        }
        assert!(text.contains(concat!(
            "roomcast_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        )));
    }

    #[test]
    fn two_nodes_of_one_process_count_apart() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.connections.inc();
        one.blocks_total.declare(["refresh_refused"]);
        one.blocks_total.inc(["refresh_refused"]);
        assert!(one.render().contains("roomcast_connections 1"));
        assert_eq!(one.blocks_total.get(["refresh_refused"]), 1);
        assert!(other.render().contains("roomcast_connections 0"));
    }
}
