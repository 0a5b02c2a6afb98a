"""Who is kept out, by which rule, and would genuine clients be?"""

from .parts import NODE, Dashboard, lines, quantiles, rate, stat

DASHBOARD = Dashboard(
    "guard",
    "Guard",
    "Who is kept out, by which rule, and would genuine clients be?",
    (
        stat("Bans in force", "As every node knows them.", "short", "max(roomcast_bans{%})"),
        stat(
            "Bans of the last hour",
            "Set by any rule.",
            "short",
            "sum(increase(roomcast_blocks_total{%}[1h]))",
            levels=(50, 200),
            alerts=("RoomcastManyBans", "RoomcastMassBans"),
        ),
        stat(
            "Nodes without Redis",
            "They cannot ask who is banned and refuse handshakes.",
            "none",
            f"sum(roomcast_guard_degraded{{%{NODE}}})",
            levels=(1, 2),
            alerts=("RoomcastGuardDegraded", "RoomcastGuardDegradedSomewhere"),
        ),
        stat(
            "Unknown connections",
            "That have not said who they are, of the node that has most.",
            "short",
            "max(roomcast_unauthenticated_connections{%})",
        ),
        lines(
            "Bans by rule",
            "Of the last ten minutes.",
            "short",
            ("{{reason}}", "sum by (reason) (increase(roomcast_blocks_total{%}[10m]))"),
            stacked=True,
            alerts=("RoomcastMassBans",),
        ),
        lines(
            "Shadow mode",
            "What rules that only watch would have done, in the last ten minutes.",
            "short",
            ("{{rule}}", "sum by (rule) (increase(roomcast_shadowed_total{%}[10m]))"),
            stacked=True,
        ),
        lines(
            "Refusals",
            "Handshakes refused before the upgrade, and events beyond their rate.",
            "ops",
            ("{{reason}}", rate("roomcast_refusals_total", "reason")),
            stacked=True,
            alerts=("RoomcastHandshakesRefused",),
        ),
        lines("Handshakes", "By result.", "ops", ("{{result}}", rate("roomcast_handshakes_total", "result"))),
        lines(
            "How long a handshake is checked",
            "Whatever its result.",
            "s",
            *quantiles("roomcast_handshake_duration_seconds"),
            levels=(0.25, 1),
        ),
        lines(
            "Connections cut",
            "For bans, expired logins, and those that did not read.",
            "ops",
            ("{{reason}}", rate("roomcast_cuts_total", "reason", ', reason=~"blocked|auth_expired|slow|lagging"')),
        ),
    ),
)
