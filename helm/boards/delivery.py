"""Accepted, published, received, delivered, repaired: where does a message get lost, and how long does it take?"""

from .parts import BAD_POSTS, EACH, NODE, Dashboard, lines, quantiles, rate

DASHBOARD = Dashboard(
    "delivery",
    "Delivery",
    "Accepted, published, received, delivered, repaired: where does a message get lost, and how long does it take?",
    (
        lines(
            "The way of messages",
            "Stored; copies handed to nodes by Redis; received by nodes: the same as handed out, unless some was lost.",
            "ops",
            ("accepted", rate("roomcast_events_accepted_total")),
            ("published", rate("roomcast_events_published_total")),
            ("received", rate("roomcast_bus_messages_received_total")),
            alerts=("RoomcastBusLosesMessages", "RoomcastDeliveryStopped"),
        ),
        lines(
            "Deliveries",
            "Room events handed to sockets, and those of them that came late, from the log.",
            "ops",
            ("delivered", rate("roomcast_deliveries_total")),
            ("late", rate("roomcast_deliveries_repaired_total")),
        ),
        lines(
            "Share of deliveries that come late",
            "The objective is 0.5 % over 30 days; from 14.4 times that on somebody is woken.",
            "percentunit",
            ("late", f"{rate('roomcast_deliveries_repaired_total')} / {rate('roomcast_deliveries_total')}"),
            levels=(0.005, 0.072),
            alerts=("RoomcastDeliveriesLate", "RoomcastDeliveriesLateSlowly"),
        ),
        lines(
            "Share of posts that fail",
            "The objective is 0.1 % over 30 days; from 14.4 times that on somebody is woken.",
            "percentunit",
            ("failed", f"{rate('roomcast_posts_total', extra=BAD_POSTS)} / {rate('roomcast_posts_total')}"),
            levels=(0.001, 0.0144),
            alerts=("RoomcastPostsFailing", "RoomcastPostsFailingSlowly"),
        ),
        lines(
            "Posts by result",
            "`dup` is a message sent again with the same cid, which is as it should be.",
            "ops",
            ("{{result}}", rate("roomcast_posts_total", "result")),
            alerts=("RoomcastPostsUncertain",),
        ),
        lines(
            "How long a post takes",
            "The call of Redis, with the wait for disk or replicas.",
            "s",
            *quantiles("roomcast_post_duration_seconds"),
            levels=(0.05, 0.25),
            alerts=("RoomcastPostsSlow",),
        ),
        lines(
            "How long a sender waits",
            "From the message's arrival to its answer, with what stood before it.",
            "s",
            *quantiles("roomcast_event_duration_seconds", extra=', event="message"'),
            levels=(0.25, 1),
            alerts=("RoomcastMessagesSlow",),
        ),
        lines(
            "Holes and rooms behind",
            "Events that were missing and were filled in from the log; rooms found behind without a message having told so.",
            "ops",
            ("holes", rate("roomcast_holes_repaired_total")),
            ("rooms behind", rate("roomcast_rooms_behind_total")),
        ),
        lines(
            "Messages that a node dropped",
            "Because it was too slow for the bus.",
            "ops",
            (EACH, rate("roomcast_bus_lagged_total", "pod, instance")),
            alerts=("RoomcastBusLagged",),
        ),
        lines(
            "Sockets that lag",
            "They do not read fast enough, or have just joined, and are brought up from the log.",
            "percentunit",
            (
                EACH,
                "sum by (pod, instance) (roomcast_lagging_sockets{%"
                + NODE
                + "}) / sum by (pod, instance) (roomcast_connections{%"
                + NODE
                + "})",
            ),
            levels=(0.02, 0.05),
            alerts=("RoomcastSocketsLag",),
        ),
    ),
)
