"""What the dashboards show. `%` within braces stands for the choice of namespace, job, pod and instance."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One panel: what it is about, in which unit, and (legend, query) of each line."""
    title: str
    description: str
    unit: str
    queries: tuple
    # Where it becomes yellow and red.
    levels: tuple = ()
    # Whether more is worse.
    rising: bool = True
    # Alerts whose runbook entries it links to.
    alerts: tuple = ()
    kind: str = "timeseries"
    stacked: bool = False
    width: int = 12
    height: int = 8
    least: float | None = 0
    most: float | None = None


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    description: str
    panels: tuple
    by_pod: bool = False


def stat(title, description, unit, query, **more):
    return Panel(title, description, unit, (("", query),), kind="stat", width=4, height=4, **more)


def lines(title, description, unit, *queries, **more):
    return Panel(title, description, unit, queries, **more)


def rate(metric, by="", extra=""):
    """The rate of a counter, summed up, `by` labels."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{%{extra}}}[$__rate_interval]))"


def share(part, whole):
    return f"{part} / {whole}"


def quantiles(metric, by="", extra=""):
    """Median and 99th percentile of a histogram; `by` a label the latter alone."""
    def quantile(q):
        grouping = f"{by}, le" if by else "le"
        return f"histogram_quantile({q}, sum by ({grouping}) (rate({metric}_bucket{{%{extra}}}[$__rate_interval])))"
    return ((f"{{{{{by}}}}}", quantile(0.99)),) if by else (("half", quantile(0.5)), ("99 %", quantile(0.99)))


NODE = ', component="node"'
WORKER = ', component="worker"'
EACH = "{{pod}} {{instance}}"
BAD_POSTS = ', result=~"unavailable|uncertain|internal"'

FAILS = lines(
    "What fails", "Conditions of readiness that fail, and services that are away, by process. Nothing is shown while all is well.",
    "none", ("{{condition}} {{pod}} {{instance}}", "sum by (condition, pod, instance) (roomcast_failing_condition{%})"),
    stacked=True, alerts=("RoomcastUnready", "RoomcastRedisUnreachable", "RoomcastMemoryPressure"),
)

FLEET = Dashboard("fleet", "Fleet", "Does chat work, and is there room for more?", (
    stat("Nodes ready", "Share of the nodes that take traffic.", "percentunit",
         f"avg(roomcast_ready{{%{NODE}}})", levels=(0.5, 1), rising=False, most=1, alerts=("RoomcastNoNodeReady", "RoomcastFewNodesReady")),
    stat("Workers ready", "Workers that archive and answer.", "none", f"sum(roomcast_ready{{%{WORKER}}})", levels=(1, 2), rising=False,
         alerts=("RoomcastNoWorkers",)),
    stat("Connected", "Sockets that are connected.", "short", "sum(roomcast_connections{%})"),
    stat("Posts that fail", "Of all posts of the last hour; the objective is 0.1 %.", "percentunit",
         f"sum(increase(roomcast_posts_total{{%{BAD_POSTS}}}[1h])) / sum(increase(roomcast_posts_total{{%}}[1h]))", levels=(0.001, 0.0144),
         alerts=("RoomcastPostsFailing",)),
    stat("Deliveries that come late", "Of all deliveries of the last hour; the objective is 0.5 %.", "percentunit",
         "sum(increase(roomcast_deliveries_repaired_total{%}[1h])) / sum(increase(roomcast_deliveries_total{%}[1h]))", levels=(0.005, 0.072),
         alerts=("RoomcastDeliveriesLate",)),
    stat("Fullest node", "The most that any node uses of its descriptors or memory.", "percentunit",
         "max(roomcast_capacity_used_ratio{%})", levels=(0.7, 0.85), most=1, alerts=("RoomcastFull", "RoomcastFleetFilling")),
    lines("Connections", "Sockets by node. Even lines: load balancing works.", "short", (EACH, f"sum by (pod, instance) (roomcast_connections{{%{NODE}}})"),
          stacked=True),
    lines("Messages", "Room events stored, and handed to sockets: the second is the first, times the people in a room.", "ops",
          ("stored", rate("roomcast_events_accepted_total")), ("handed to sockets", rate("roomcast_deliveries_total")),
          alerts=("RoomcastDeliveryStopped",)),
    lines("Events of clients by result", "Everything that did not end with ok.", "ops", ("{{result}}", rate("roomcast_events_total", "result", ', result!="ok"')),
          stacked=True),
    lines("How long a message takes", "From its arrival at the node to its answer.", "s", *quantiles("roomcast_event_duration_seconds", extra=', event="message"'),
          levels=(0.25, 1), alerts=("RoomcastMessagesSlow",)),
    lines("Handshakes", "Who comes in, and who does not.", "ops", ("{{result}}", rate("roomcast_handshakes_total", "result")),
          alerts=("RoomcastHandshakesUnverified",)),
    lines("Connections cut", "By reason. A rollout shows as `drain`.", "ops", ("{{reason}}", rate("roomcast_cuts_total", "reason")), stacked=True),
    lines("Room left", "Average and maximum over the nodes of what is used of descriptors and memory.", "percentunit",
          ("{{resource}}, average", f"avg by (resource) (roomcast_capacity_used_ratio{{%{NODE}}})"),
          ("{{resource}}, maximum", f"max by (resource) (roomcast_capacity_used_ratio{{%{NODE}}})"), levels=(0.7, 0.85), most=1,
          alerts=("RoomcastFleetFilling",)),
    lines("Services", "Calls of the services for auth, rooms and messages that got no answer.", "ops",
          ("{{call}}", rate("roomcast_upstream_requests_total", "call", ', result="unavailable"')), alerts=("RoomcastServiceFailing",)),
    lines("Archive", "Age of the oldest event that waits to be archived.", "s", ("oldest", "max(roomcast_archive_lag_seconds{%})"), levels=(300, 7200),
          alerts=("RoomcastArchiveLags", "RoomcastArchiveStands")),
    lines("Archive: how many wait", "Events that wait to be archived.", "short", ("waiting", "max(roomcast_archive_backlog_events{%})"),
          alerts=("RoomcastArchiveGrows",)),
    FAILS,
    lines("Versions", "Processes by the version they run.", "none", ("{{version}}", "count by (version) (roomcast_build_info{%})"), stacked=True),
))

NODE_PANELS = Dashboard("node", "Node", "One process, or some beside each other: choose them by pod or instance.", (
    stat("Ready", "Whether it takes traffic.", "bool_yes_no", "min(roomcast_ready{%})", levels=(0, 1), rising=False, alerts=("RoomcastUnready",)),
    stat("Runs for", "Since its last start.", "s", "time() - max(process_start_time_seconds{%} and on (namespace, job, instance) roomcast_build_info{%})",
         alerts=("RoomcastRestarts",)),
    stat("Connected", "Sockets.", "short", "sum(roomcast_connections{%})"),
    stat("Rooms", "Rooms that it listens to.", "short", "sum(roomcast_rooms{%})"),
    stat("Lagging", "Sockets that do not read fast enough, or have just joined.", "short", "sum(roomcast_lagging_sockets{%})", alerts=("RoomcastSocketsLag",)),
    stat("Drained", "Share of its connections that a drain has closed; 0 without one.", "percentunit", "max(roomcast_drain_progress_ratio{%})", most=1,
         alerts=("RoomcastDrainHangs",)),
    lines("Connections", "Sockets, and those that have not said who they are.", "short", (EACH, "sum by (pod, instance) (roomcast_connections{%})"),
          (f"{EACH}, unknown", "sum by (pod, instance) (roomcast_unauthenticated_connections{%})")),
    lines("Events of clients", "By event.", "ops", ("{{event}}", rate("roomcast_events_total", "event")), stacked=True),
    lines("How long events take", "The 99th percentile, from arrival to answer.", "s", *quantiles("roomcast_event_duration_seconds", "event"),
          alerts=("RoomcastMessagesSlow",)),
    lines("Bus and deliveries", "Room events received on the bus, and handed to sockets.", "ops", (f"{EACH} received", rate("roomcast_bus_messages_received_total", "pod, instance")),
          (f"{EACH} delivered", rate("roomcast_deliveries_total", "pod, instance"))),
    lines("CPU", "Cores that it uses.", "none", (EACH, "rate(process_cpu_seconds_total{%}[$__rate_interval]) and on (namespace, job, instance) roomcast_build_info{%}")),
    lines("Threads that are busy", "Share of the time that threads of the runtime spend with tasks.", "percentunit",
          (EACH, "rate(roomcast_runtime_busy_seconds_total{%}[$__rate_interval]) / roomcast_runtime_workers{%}"), levels=(0.7, 0.9), most=1, alerts=("RoomcastSaturated",)),
    lines("Tasks that wait", "For a thread, in the common queue.", "short", (EACH, "roomcast_runtime_queue_tasks{%}")),
    lines("Tasks", "That have not ended.", "short", (EACH, "roomcast_runtime_tasks{%}")),
    lines("Memory", "Resident memory.", "bytes", (EACH, "process_resident_memory_bytes{%} and on (namespace, job, instance) roomcast_build_info{%}"),
          alerts=("RoomcastMemoryPressure",)),
    lines("Capacity used", "Of the limits of descriptors and memory.", "percentunit", (f"{EACH} {{{{resource}}}}", "roomcast_capacity_used_ratio{%}"), levels=(0.7, 0.85), most=1,
          alerts=("RoomcastFull",)),
    FAILS,
    lines("Traces", "Spans by what became of them.", "ops", ("{{result}}", rate("roomcast_trace_spans_total", "result")), alerts=("RoomcastSpansLost",)),
), by_pod=True)

DELIVERY = Dashboard("delivery", "Delivery", "Accepted, published, received, delivered, repaired: where does a message get lost, and how long does it take?", (
    lines("The way of messages", "Stored; copies handed to nodes by Redis; received by nodes: the same as handed out, unless some was lost.", "ops",
          ("accepted", rate("roomcast_events_accepted_total")), ("published", rate("roomcast_events_published_total")),
          ("received", rate("roomcast_bus_messages_received_total")), alerts=("RoomcastBusLosesMessages", "RoomcastDeliveryStopped")),
    lines("Deliveries", "Room events handed to sockets, and those of them that came late, from the log.", "ops",
          ("delivered", rate("roomcast_deliveries_total")), ("late", rate("roomcast_deliveries_repaired_total"))),
    lines("Share of deliveries that come late", "The objective is 0.5 % over 30 days; from 14.4 times that on somebody is woken.", "percentunit",
          ("late", share(rate("roomcast_deliveries_repaired_total"), rate("roomcast_deliveries_total"))), levels=(0.005, 0.072),
          alerts=("RoomcastDeliveriesLate", "RoomcastDeliveriesLateSlowly")),
    lines("Share of posts that fail", "The objective is 0.1 % over 30 days; from 14.4 times that on somebody is woken.", "percentunit",
          ("failed", share(rate("roomcast_posts_total", extra=BAD_POSTS), rate("roomcast_posts_total"))), levels=(0.001, 0.0144),
          alerts=("RoomcastPostsFailing", "RoomcastPostsFailingSlowly")),
    lines("Posts by result", "`dup` is a message sent again with the same cid, which is as it should be.", "ops", ("{{result}}", rate("roomcast_posts_total", "result")),
          alerts=("RoomcastPostsUncertain",)),
    lines("How long a post takes", "The call of Redis, with the wait for disk or replicas.", "s", *quantiles("roomcast_post_duration_seconds"), levels=(0.05, 0.25),
          alerts=("RoomcastPostsSlow",)),
    lines("How long a sender waits", "From the message's arrival to its answer, with what stood before it.", "s",
          *quantiles("roomcast_event_duration_seconds", extra=', event="message"'), levels=(0.25, 1), alerts=("RoomcastMessagesSlow",)),
    lines("Holes and rooms behind", "Events that were missing and were filled in from the log; rooms found behind without a message having told so.", "ops",
          ("holes", rate("roomcast_holes_repaired_total")), ("rooms behind", rate("roomcast_rooms_behind_total"))),
    lines("Messages that a node dropped", "Because it was too slow for the bus.", "ops", (EACH, rate("roomcast_bus_lagged_total", "pod, instance")),
          alerts=("RoomcastBusLagged",)),
    lines("Sockets that lag", "They do not read fast enough, or have just joined, and are brought up from the log.", "percentunit",
          (EACH, "sum by (pod, instance) (roomcast_lagging_sockets{%" + NODE + "}) / sum by (pod, instance) (roomcast_connections{%" + NODE + "})"), levels=(0.02, 0.05),
          alerts=("RoomcastSocketsLag",)),
))

GUARD = Dashboard("guard", "Guard", "Who is kept out, by which rule, and would genuine clients be?", (
    stat("Bans in force", "As every node knows them.", "short", "max(roomcast_bans{%})"),
    stat("Bans of the last hour", "Set by any rule.", "short", "sum(increase(roomcast_blocks_total{%}[1h]))", levels=(50, 200), alerts=("RoomcastManyBans", "RoomcastMassBans")),
    stat("Nodes without Redis", "They cannot ask who is banned and refuse handshakes.", "none", f"sum(roomcast_guard_degraded{{%{NODE}}})", levels=(1, 2),
         alerts=("RoomcastGuardDegraded", "RoomcastGuardDegradedSomewhere")),
    stat("Unknown connections", "That have not said who they are, of the node that has most.", "short", "max(roomcast_unauthenticated_connections{%})"),
    lines("Bans by rule", "Of the last ten minutes.", "short", ("{{reason}}", "sum by (reason) (increase(roomcast_blocks_total{%}[10m]))"), stacked=True,
          alerts=("RoomcastMassBans",)),
    lines("Shadow mode", "What rules that only watch would have done, in the last ten minutes.", "short",
          ("{{rule}}", "sum by (rule) (increase(roomcast_shadowed_total{%}[10m]))"), stacked=True),
    lines("Refusals", "Handshakes refused before the upgrade, and events beyond their rate.", "ops", ("{{reason}}", rate("roomcast_refusals_total", "reason")), stacked=True,
          alerts=("RoomcastHandshakesRefused",)),
    lines("Handshakes", "By result.", "ops", ("{{result}}", rate("roomcast_handshakes_total", "result"))),
    lines("How long a handshake is checked", "Whatever its result.", "s", *quantiles("roomcast_handshake_duration_seconds"), levels=(0.25, 1)),
    lines("Connections cut", "For bans, expired logins, and those that did not read.", "ops",
          ("{{reason}}", rate("roomcast_cuts_total", "reason", ', reason=~"blocked|auth_expired|slow|lagging"'))),
))

GPT = Dashboard("gpt", "GPT", "Are questions to the model answered, how soon, and by how many workers?", (
    stat("Wait for a worker", "Questions that could be answered now.", "short", 'max(roomcast_gpt_jobs{%, state="ready"})', levels=(10, 50), alerts=("RoomcastGptWaits",)),
    stat("Oldest wait", "Of a question that could be answered.", "s", "max(roomcast_gpt_oldest_wait_seconds{%})", levels=(15, 60), alerts=("RoomcastGptWaits",)),
    stat("Given up", "Questions kept for operators.", "short", "max(roomcast_gpt_dead_jobs{%})", levels=(1, 50), alerts=("RoomcastGptDead",)),
    stat("Slots in use", "Of all workers.", "percentunit", f"sum(roomcast_gpt_answering{{%{WORKER}}}) / sum(roomcast_gpt_slots{{%{WORKER}}})", levels=(0.75, 0.95), most=1),
    stat("Workers", "That are ready.", "none", f"sum(roomcast_ready{{%{WORKER}}})", levels=(1, 2), rising=False, alerts=("RoomcastNoWorkers",)),
    stat("Paused", "By an operator: `roomcast queue pause`.", "bool_yes_no", "max(roomcast_gpt_paused{%})", levels=(1,), alerts=("RoomcastGptPaused",)),
    lines("Open questions", "Of the whole cluster: `ready` waits for a worker, `waiting` behind others of the room or user.", "short",
          ("{{state}}", "max by (state) (roomcast_gpt_jobs{%})"), stacked=True, alerts=("RoomcastGptWaits",)),
    lines("Answers by result", "`ok` and everything else.", "ops", ("{{result}}", rate("roomcast_gpt_replies_total", "result")), stacked=True, alerts=("RoomcastGptFails",)),
    lines("How long a question waits", "Until a worker takes it.", "s", *quantiles("roomcast_gpt_wait_seconds"), levels=(15, 60)),
    lines("Until the first token", "From the call of the model.", "s", *quantiles("roomcast_gpt_first_token_seconds"), levels=(5, 15), alerts=("RoomcastGptSlow",)),
    lines("How long an answer takes", "From a worker's claim to the end.", "s", *quantiles("roomcast_gpt_answer_duration_seconds")),
    lines("Answering now", "By worker.", "short", (EACH, f"sum by (pod, instance) (roomcast_gpt_answering{{%{WORKER}}})"), stacked=True),
    lines("Claims", "By how they ended: for good, tried again later, lost to another worker, or to Redis.", "ops", ("{{result}}", rate("roomcast_gpt_attempts_total", "result"))),
    lines("Tokens", "Tokens a second by kind.", "short", ("{{kind}}", rate("roomcast_gpt_tokens_total", "kind"))),
))

REDIS = Dashboard("redis", "Redis", "Redis as nodes and workers see it; Redis' own figures come from its exporter.", (
    lines("Calls", "Scripts by name.", "ops", ("{{call}}", rate("roomcast_redis_call_duration_seconds_count", "call")), stacked=True),
    lines("Errors", "Not sent (`unavailable`), sent without an answer (`uncertain`), refused, or answered strangely.", "ops", ("{{kind}}", rate("roomcast_redis_errors_total", "kind")),
          stacked=True, alerts=("RoomcastRedisErrors", "RoomcastRedisUnreachable")),
    lines("How long scripts take", "The 99th percentile by script.", "s", *quantiles("roomcast_redis_call_duration_seconds", "call"), levels=(0.05, 0.25)),
    lines("How long a post takes", "With the wait for disk or replicas.", "s", *quantiles("roomcast_post_duration_seconds"), levels=(0.05, 0.25), alerts=("RoomcastPostsSlow",)),
    lines("Silence of the bus", "For how long a node has not heard its own canary, which it sends every second.", "s", (EACH, f"max by (pod, instance) (roomcast_bus_silence_seconds{{%{NODE}}})"),
          levels=(3, 5), alerts=("RoomcastBusSilent",)),
    lines("Subscribed anew", "Within 15 minutes.", "short", (EACH, f"sum by (pod, instance) (increase(roomcast_bus_resubscribes_total{{%{NODE}}}[15m]))"), levels=(2, 3),
          alerts=("RoomcastBusResubscribes",)),
    lines("Cut for faults of Redis", "Connections closed because what they get could not be relied on.", "ops",
          ("{{reason}}", rate("roomcast_cuts_total", "reason", ', reason=~"sync_lost|unreadable|silent|cut_off"'))),
    lines("Archived", "Events that left Redis for the message service.", "ops", ("archived", rate("roomcast_archived_events_total")), ("stored", rate("roomcast_events_accepted_total")),
          alerts=("RoomcastArchiveGrows",)),
    lines("Dead nodes' sockets", "Traces of sockets that were removed for nodes that died, within an hour.", "short", ("removed", "sum(increase(roomcast_reaped_sockets_total{%}[1h]))")),
    FAILS,
))

DASHBOARDS = (FLEET, NODE_PANELS, DELIVERY, GUARD, GPT, REDIS)
