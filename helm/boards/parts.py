"""What panels are made of. In queries `%` within braces stands for the choice of namespace, job, pod and instance."""

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
    """One dashboard; `by_pod` where single pods are chosen."""

    name: str
    title: str
    description: str
    panels: tuple
    by_pod: bool = False


def stat(title, description, unit, query, **more):
    """A single figure."""
    return Panel(title, description, unit, (("", query),), kind="stat", width=4, height=4, **more)


def lines(title, description, unit, *queries, **more):
    """What changes over time, each of `queries` a legend and a query."""
    return Panel(title, description, unit, queries, **more)


def rate(metric, by="", extra=""):
    """The rate of a counter, summed up, `by` labels."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{%{extra}}}[$__rate_interval]))"


def quantiles(metric, by="", extra=""):
    """Median and 99th percentile of a histogram; `by` a label only the latter."""

    def quantile(q):
        grouping = f"{by}, le" if by else "le"
        return f"histogram_quantile({q}, sum by ({grouping}) (rate({metric}_bucket{{%{extra}}}[$__rate_interval])))"

    return ((f"{{{{{by}}}}}", quantile(0.99)),) if by else (("half", quantile(0.5)), ("99 %", quantile(0.99)))


NODE = ', component="node"'
WORKER = ', component="worker"'
EACH = "{{pod}} {{instance}}"
BAD_POSTS = ', result=~"unavailable|uncertain|internal"'

FAILS = lines(
    "What fails",
    "Conditions of readiness that fail, and services that are away, by process. Nothing is shown while all is well.",
    "none",
    ("{{condition}} {{pod}} {{instance}}", "sum by (condition, pod, instance) (roomcast_failing_condition{%})"),
    stacked=True,
    alerts=("RoomcastUnready", "RoomcastRedisUnreachable", "RoomcastMemoryPressure"),
)
