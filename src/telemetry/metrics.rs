//! Every metric, declared once with its help, labels and a typical query; several nodes in one process each have their own.
//!
//! `docs/metrics.md` is made of these declarations (`make metrics`), and a test compares both.

mod kinds;
mod page;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Opts, Registry, TextEncoder};

use self::kinds::Kind;
pub use self::kinds::{Declared, Known, Labelled, Timed};
pub use self::page::page;
use super::{export, process};
use crate::config::Rule;

/// Bucket limits of calls on the local network: Redis on the same machine takes a quarter of a millisecond, a broken one its
/// timeout.
const CALL_SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];
/// Bucket limits of scripts, of which there are many.
const SCRIPT_SECONDS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25, 1.0];
/// Bucket limits of what a person waits for: services, handshakes, events.
const WAIT_SECONDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Bucket limits of a model's work: a token comes within a second or so, a long reply takes minutes.
const MODEL_SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 180.0];

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

/// How an event can end: the contract's codes.
const EVENT_RESULTS: [&str; 18] = [
    "ok",
    "ignored",
    "bad_payload",
    "too_large",
    "too_many_rooms",
    "not_member",
    "not_joined",
    "not_author",
    "not_found",
    "rate_limited",
    "blocked",
    "unavailable",
    "uncertain",
    "cid_conflict",
    "room_gone",
    "auth_expired",
    "auth_unavailable",
    "internal",
];

/// The calls of the REST services.
const UPSTREAM_CALLS: [&str; 10] = [
    "verify_token",
    "refresh_token",
    "check_room",
    "user_rooms",
    "delete_room",
    "messages",
    "message",
    "sync_rooms",
    "save_messages",
    "jwks",
];

fn rules() -> Vec<&'static str> {
    Rule::ALL.iter().map(|rule| rule.as_str()).collect()
}

/// Declares the metrics: `field: Type = "name" [label = values] in BUCKETS, "query"`, with the help as its doc comment.
macro_rules! metrics {
    ($( $(#[doc = $help:literal])+ $field:ident : $ty:ty = $name:literal
        $([ $($label:literal = $values:expr),+ ])? $(in $buckets:expr)?, $query:literal; )+) => {
        /// The metrics of one node or worker; share them in an `Arc`.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $( $(#[doc = $help])+ pub $field: $ty, )+
        }

        /// The declarations by field.
        #[allow(non_upper_case_globals, reason = "a field's declaration has the field's name")]
        mod declared {
            use super::*;
            $( pub const $field: Declared = Declared {
                name: $name,
                kind: <$ty as Kind>::WORD,
                help: concat!($($help),+),
                labels: &[ $( $( ($label, || $values.to_vec()) ),+ )? ],
                buckets: { const NONE: &[f64] = &[]; let _none = NONE; $( let _none = $buckets; )? _none },
                query: $query,
            }; )+
        }

        /// Every metric of a node or worker in the order of the documentation, apart from those of the process.
        pub const DECLARED: &[Declared] = &[ $( declared::$field ),+ ];

        impl Metrics {
            /// Registers every metric at 0 in a registry of its own; fails only on a bad declaration above.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                build_info(&registry)?;
                process::register(&registry)?;
                export::register(&registry)?;
                Ok(Self {
                    $( $field: Kind::register(&registry, &declared::$field)?, )+
                    registry,
                })
            }
        }
    };
}

metrics! {
    /// Whether this process should get traffic (1) or not (0), as `/readyz` says.
    ready: IntGauge = "roomcast_ready", "sum(roomcast_ready) / count(roomcast_ready)";
    /// What fails now is 1, all else is not shown: the conditions of readiness (`redis`, `bus`, `redis settings`, `memory`, `draining`) and what
    /// is only a warning there (`auth_service`, `api_service`, `jwks`).
    failing_conditions: Known<1> = "roomcast_failing_condition" ["condition" = []], "sum by (condition) (roomcast_failing_condition)";
    /// Sockets connected now.
    connections: IntGauge = "roomcast_connections", "sum(roomcast_connections)";
    /// Connections that have not said who they are yet.
    unauthenticated: IntGauge = "roomcast_unauthenticated_connections", "max by (instance) (roomcast_unauthenticated_connections)";
    /// Handshakes by result.
    handshakes_total: Labelled<1> = "roomcast_handshakes_total" ["result" = ["connected", "refreshed", "blocked", "rate_limited", "auth_unavailable"]],
        "sum by (result) (rate(roomcast_handshakes_total[5m]))";
    /// How long the check of a handshake takes, whatever its result.
    handshake_duration_seconds: Histogram = "roomcast_handshake_duration_seconds" in WAIT_SECONDS,
        "histogram_quantile(0.99, sum by (le) (rate(roomcast_handshake_duration_seconds_bucket[5m])))";
    /// Handshakes refused before the upgrade, and events beyond their rate (`events`), by reason.
    refusals_total: Labelled<1> = "roomcast_refusals_total" ["reason" = ["blocked", "unavailable", "handshakes", "events", "draining", "unauthenticated"]],
        "sum by (reason) (rate(roomcast_refusals_total[5m]))";
    /// Connections cut by reason. `slow` and `lagging` did not read, `sync_lost` may have missed something, `unreadable`,
    /// `silent` and `cut_off` are faults of Redis.
    cuts_total: Labelled<1> = "roomcast_cuts_total" ["reason" = ["blocked", "auth_expired", "slow", "lagging", "sync_lost", "unreadable", "silent", "cut_off", "drain", "rebalance"]],
        "sum by (reason) (rate(roomcast_cuts_total[5m]))";
    /// Events of clients by event and result: `ok`, or the code of the error.
    events_total: Labelled<2> = "roomcast_events_total" ["event" = EVENTS, "result" = EVENT_RESULTS],
        "sum by (result) (rate(roomcast_events_total{result!=\"ok\"}[5m]))";
    /// How long an event takes from its arrival in its socket's queue to its answer.
    event_duration_seconds: Timed = "roomcast_event_duration_seconds" ["event" = EVENTS] in WAIT_SECONDS,
        "histogram_quantile(0.99, sum by (event, le) (rate(roomcast_event_duration_seconds_bucket[5m])))";
    /// Posts to room logs by result; several messages may share one call of Redis, each is counted.
    posts_total: Labelled<1> = "roomcast_posts_total" ["result" = ["ok", "dup", "unavailable", "uncertain", "cid_conflict", "room_gone", "not_author", "not_found", "internal"]],
        "sum by (result) (rate(roomcast_posts_total[5m]))";
    /// How long a post to a room's log takes, with the wait of the durability level.
    post_duration_seconds: Histogram = "roomcast_post_duration_seconds" in CALL_SECONDS,
        "histogram_quantile(0.99, sum by (le) (rate(roomcast_post_duration_seconds_bucket[5m])))";
    /// Delivery, first step: room events that this process had stored, replies of the model included.
    events_accepted_total: IntCounter = "roomcast_events_accepted_total", "sum(rate(roomcast_events_accepted_total[5m]))";
    /// Delivery, second step: copies of these events that Redis handed to nodes which have the room joined.
    events_published_total: IntCounter = "roomcast_events_published_total", "sum(rate(roomcast_events_published_total[5m]))";
    /// Delivery, third step: room events received on the bus. Over all nodes it is what was published, unless some was lost.
    bus_messages_received_total: IntCounter = "roomcast_bus_messages_received_total",
        "sum(rate(roomcast_bus_messages_received_total[5m])) / sum(rate(roomcast_events_published_total[5m]))";
    /// Delivery, fourth step: room events handed to sockets.
    deliveries_total: IntCounter = "roomcast_deliveries_total", "sum(rate(roomcast_deliveries_total[5m]))";
    /// Deliveries that came late, from a room's log, because the bus did not bring the event. Part of `roomcast_deliveries_total`.
    deliveries_repaired_total: IntCounter = "roomcast_deliveries_repaired_total",
        "1 - sum(rate(roomcast_deliveries_repaired_total[30m])) / sum(rate(roomcast_deliveries_total[30m]))";
    /// Room events that were missing here and were filled in from their room's log.
    holes_repaired_total: IntCounter = "roomcast_holes_repaired_total", "sum(rate(roomcast_holes_repaired_total[5m]))";
    /// Rooms found behind their log without a message having told so.
    rooms_behind_total: IntCounter = "roomcast_rooms_behind_total", "sum(increase(roomcast_rooms_behind_total[15m]))";
    /// Rooms whose live channel this node listens to.
    rooms: IntGauge = "roomcast_rooms", "sum(roomcast_rooms)";
    /// Messages lost by the bus receiver because it lagged; the rooms are filled from their logs.
    bus_lagged_total: IntCounter = "roomcast_bus_lagged_total", "sum(increase(roomcast_bus_lagged_total[15m]))";
    /// Times the bus was subscribed anew; once at the start.
    bus_resubscribes_total: IntCounter = "roomcast_bus_resubscribes_total", "sum by (instance) (increase(roomcast_bus_resubscribes_total[15m]))";
    /// For how long nothing of this node's own has come back through Redis: by the bus's canaries, of the primary heard last.
    bus_silence_seconds: Gauge = "roomcast_bus_silence_seconds", "max(roomcast_bus_silence_seconds)";
    /// Sockets that do not read fast enough now, or have just joined: they are brought up from the log.
    lagging_sockets: IntGauge = "roomcast_lagging_sockets", "sum(roomcast_lagging_sockets)";
    /// How long a script in Redis takes, from the call to its answer, by script (the files of src/redis/scripts); the count is
    /// that of the calls, failed ones included.
    redis_call_duration_seconds: Timed = "roomcast_redis_call_duration_seconds" ["call" = []] in SCRIPT_SECONDS,
        "sum by (call) (rate(roomcast_redis_call_duration_seconds_count[5m]))";
    /// Scripts in Redis that failed: not sent (`unavailable`), sent without an answer (`uncertain`), refused or answered strangely.
    redis_errors_total: Labelled<1> = "roomcast_redis_errors_total" ["kind" = ["unavailable", "uncertain", "refused", "unexpected"]],
        "sum by (kind) (rate(roomcast_redis_errors_total[5m]))";
    /// Calls of the REST services by call and result.
    upstream_requests_total: Labelled<2> = "roomcast_upstream_requests_total" ["call" = UPSTREAM_CALLS, "result" = ["ok", "refused", "unavailable"]],
        "sum by (call) (rate(roomcast_upstream_requests_total{result=\"unavailable\"}[5m]))";
    /// How long a call of a REST service takes.
    upstream_request_duration_seconds: Timed = "roomcast_upstream_request_duration_seconds" ["call" = UPSTREAM_CALLS] in WAIT_SECONDS,
        "histogram_quantile(0.99, sum by (call, le) (rate(roomcast_upstream_request_duration_seconds_bucket[5m])))";
    /// Bans in force, as far as this node knows: about the same on every node, so use `max`.
    bans: IntGauge = "roomcast_bans", "max(roomcast_bans)";
    /// Bans set by this node, by rule.
    blocks_total: Labelled<1> = "roomcast_blocks_total" ["reason" = rules()], "sum by (reason) (increase(roomcast_blocks_total[1h]))";
    /// What rules in shadow mode would have refused or banned, by rule.
    shadowed_total: Labelled<1> = "roomcast_shadowed_total" ["rule" = rules()], "sum by (rule) (increase(roomcast_shadowed_total[1h]))";
    /// Whether the guard cannot ask Redis: limits and bans known here hold, handshakes are refused.
    guard_degraded: IntGauge = "roomcast_guard_degraded", "sum(roomcast_guard_degraded)";
    /// How far this node's drain has come: the share of its sockets that are gone; 0 while it does not drain.
    drain_progress: Gauge = "roomcast_drain_progress_ratio", "roomcast_drain_progress_ratio > 0";
    /// Sockets that a draining node has yet to part with; 0 while it does not drain.
    drain_sockets: IntGauge = "roomcast_drain_sockets", "sum(roomcast_drain_sockets)";
    /// Sockets that this node has sent away, because it ends or has more than its share, by how they went: `left` by themselves,
    /// mostly upon `server:drain`, or `closed` by the node.
    departures_total: Labelled<2> = "roomcast_departures_total" ["reason" = ["drain", "rebalance"], "end" = ["left", "closed"]],
        "sum by (reason, end) (rate(roomcast_departures_total[5m]))";
    /// Live nodes, as this node sees them; each shows about the same.
    live_nodes: Known<0> = "roomcast_live_nodes", "max(roomcast_live_nodes)";
    /// This node's sockets divided by the mean of all live nodes. Well above 1 it sends some away, unless ROOMCAST_REBALANCE_PER_MINUTE
    /// is 0; then it does not look either.
    load_ratio: Known<0> = "roomcast_load_ratio", "max by (instance) (roomcast_load_ratio)";
    /// Whether this node has given up balancing until a node comes or goes, because the sockets that it sends away come back to it.
    rebalance_futile: IntGauge = "roomcast_rebalance_futile", "max(roomcast_rebalance_futile)";
    /// Sockets of dead nodes whose traces were removed.
    reaped_sockets_total: IntCounter = "roomcast_reaped_sockets_total", "sum(increase(roomcast_reaped_sockets_total[1h]))";
    /// Open questions to the model of the whole cluster. `ready` could be answered now and wait for a worker (what to scale by),
    /// `running` are being answered, `delayed` are tried again later, `waiting` stand behind others of their room or user. Only
    /// workers show it, each the same: use `max`.
    gpt_jobs: Known<1> = "roomcast_gpt_jobs" ["state" = ["ready", "running", "delayed", "waiting"]], "max by (state) (roomcast_gpt_jobs)";
    /// For how long the oldest question that could be answered has waited for a worker, without the time of pauses; of the
    /// whole cluster, as above.
    gpt_oldest_wait: Known<0> = "roomcast_gpt_oldest_wait_seconds", "max(roomcast_gpt_oldest_wait_seconds)";
    /// Questions given up that are kept for operators; of the whole cluster, as above.
    gpt_dead_jobs: Known<0> = "roomcast_gpt_dead_jobs", "max(roomcast_gpt_dead_jobs)";
    /// Whether an operator has paused the queue of questions: this worker takes none.
    gpt_paused: IntGauge = "roomcast_gpt_paused", "max(roomcast_gpt_paused)";
    /// Questions that this worker is answering.
    gpt_answering: IntGauge = "roomcast_gpt_answering", "sum(roomcast_gpt_answering) / sum(roomcast_gpt_slots)";
    /// Questions that this worker can answer at once.
    gpt_slots: IntGauge = "roomcast_gpt_slots", "sum(roomcast_gpt_slots)";
    /// Claims of questions by how they ended: `ended` for good, `again` later, `lost` to another worker, `failed` for Redis.
    gpt_attempts_total: Labelled<1> = "roomcast_gpt_attempts_total" ["result" = ["ended", "again", "lost", "failed"]],
        "sum by (result) (rate(roomcast_gpt_attempts_total[5m]))";
    /// Questions that have ended, by result: a reply (`ok`), one cut short by who asked (`partial`), or the code of the error.
    gpt_replies_total: Labelled<1> = "roomcast_gpt_replies_total" ["result" = ["ok", "partial", "cancelled", "deadline", "room_busy", "user_busy", "queue_full",
        "budget", "stalled", "unconfigured", "provider_unavailable", "rate_limited", "unauthorized", "context_too_long", "bad_stream", "timeout", "too_large", "refused"]],
        "sum by (result) (rate(roomcast_gpt_replies_total[5m]))";
    /// Summaries of rooms (`GPT_SUMMARY_TOKENS`), by what became of them: `stale` is one whose messages changed while it was written,
    /// `unusable` one that is empty or far too long.
    gpt_summaries_total: Labelled<1> = "roomcast_gpt_summaries_total" ["result" = ["ok", "stale", "unusable", "timeout", "failed"]],
        "sum by (result) (rate(roomcast_gpt_summaries_total[1h]))";
    /// How long a question waited from being queued to being claimed, without the time of pauses.
    gpt_wait_seconds: Histogram = "roomcast_gpt_wait_seconds" in MODEL_SECONDS,
        "histogram_quantile(0.95, sum by (le) (rate(roomcast_gpt_wait_seconds_bucket[5m])))";
    /// How long the model takes to a first token, from the call.
    gpt_first_token_seconds: Histogram = "roomcast_gpt_first_token_seconds" in MODEL_SECONDS,
        "histogram_quantile(0.95, sum by (le) (rate(roomcast_gpt_first_token_seconds_bucket[5m])))";
    /// How long a claimed question takes to the end of its attempt.
    gpt_answer_duration_seconds: Histogram = "roomcast_gpt_answer_duration_seconds" in MODEL_SECONDS,
        "histogram_quantile(0.95, sum by (le) (rate(roomcast_gpt_answer_duration_seconds_bucket[5m])))";
    /// Tokens of the model by kind: as the endpoint counts them, or as counted here where it does not tell.
    gpt_tokens_total: Labelled<1> = "roomcast_gpt_tokens_total" ["kind" = ["prompt", "completion"]],
        "sum by (kind) (increase(roomcast_gpt_tokens_total[1h]))";
    /// Events of the whole cluster that wait to be archived. Only workers show it, each the same: use `max`.
    archive_backlog: Known<0> = "roomcast_archive_backlog_events", "max(roomcast_archive_backlog_events)";
    /// Age of the oldest event that waits to be archived; of the whole cluster, as above.
    archive_lag_seconds: Known<0> = "roomcast_archive_lag_seconds", "max(roomcast_archive_lag_seconds)";
    /// Events archived.
    archived_total: IntCounter = "roomcast_archived_events_total", "sum(rate(roomcast_archived_events_total[5m]))";
}

/// What is declared elsewhere.
const BUILD_INFO: Declared = Declared {
    name: "roomcast_build_info",
    kind: "gauge",
    help: "The running build, by its version; always 1.",
    labels: &[("version", Vec::new)],
    buckets: &[],
    query: "count by (version) (roomcast_build_info)",
};

/// Every metric there is, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Declared> {
    const FIRST: &[Declared] = &[BUILD_INFO];
    FIRST
        .iter()
        .chain(DECLARED)
        .chain(export::DECLARED)
        .chain(process::DECLARED)
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

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let options = Opts::new(BUILD_INFO.name, BUILD_INFO.help).const_label("version", env!("CARGO_PKG_VERSION"));
    let info = IntGauge::with_opts(options)?;
    info.set(1);
    registry.register(Box::new(info))
}

#[cfg(test)]
mod tests;
