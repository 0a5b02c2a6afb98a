"""Redis as nodes and workers see it; Redis' own figures come from its exporter."""

from .parts import EACH, FAILS, NODE, Dashboard, lines, quantiles, rate

DASHBOARD = Dashboard(
    "redis",
    "Redis",
    "Redis as nodes and workers see it; Redis' own figures come from its exporter.",
    (
        lines(
            "Calls",
            "Scripts by name.",
            "ops",
            ("{{call}}", rate("roomcast_redis_call_duration_seconds_count", "call")),
            stacked=True,
        ),
        lines(
            "Errors",
            "Not sent (`unavailable`), sent without an answer (`uncertain`), refused, or answered strangely.",
            "ops",
            ("{{kind}}", rate("roomcast_redis_errors_total", "kind")),
            stacked=True,
            alerts=("RoomcastRedisErrors", "RoomcastRedisUnreachable"),
        ),
        lines(
            "How long scripts take",
            "The 99th percentile by script.",
            "s",
            *quantiles("roomcast_redis_call_duration_seconds", "call"),
            levels=(0.05, 0.25),
        ),
        lines(
            "How long a post takes",
            "With the wait for disk or replicas.",
            "s",
            *quantiles("roomcast_post_duration_seconds"),
            levels=(0.05, 0.25),
            alerts=("RoomcastPostsSlow",),
        ),
        lines(
            "Silence of the bus",
            "For how long a node has not heard its own canary, which it sends every second.",
            "s",
            (EACH, f"max by (pod, instance) (roomcast_bus_silence_seconds{{%{NODE}}})"),
            levels=(3, 5),
            alerts=("RoomcastBusSilent",),
        ),
        lines(
            "Subscribed anew",
            "Within 15 minutes.",
            "short",
            (EACH, f"sum by (pod, instance) (increase(roomcast_bus_resubscribes_total{{%{NODE}}}[15m]))"),
            levels=(2, 3),
            alerts=("RoomcastBusResubscribes",),
        ),
        lines(
            "Cut for faults of Redis",
            "Connections closed because what they get could not be relied on.",
            "ops",
            ("{{reason}}", rate("roomcast_cuts_total", "reason", ', reason=~"sync_lost|unreadable|silent|cut_off"')),
        ),
        lines(
            "Archived",
            "Events that left Redis for the message service.",
            "ops",
            ("archived", rate("roomcast_archived_events_total")),
            ("stored", rate("roomcast_events_accepted_total")),
            alerts=("RoomcastArchiveGrows",),
        ),
        lines(
            "Dead nodes' sockets",
            "Traces of sockets that were removed for nodes that died, within an hour.",
            "short",
            ("removed", "sum(increase(roomcast_reaped_sockets_total{%}[1h]))"),
        ),
        FAILS,
    ),
)
