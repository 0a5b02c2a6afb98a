//! What the process takes: CPU, memory, descriptors, and how busy its runtime is. Read from /proc when asked for.
//!
//! The collector of the `prometheus` crate counts whole seconds of CPU and brings crates of its own; this one does neither.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};

use super::metrics::Declared;

/// Ticks of a second in /proc, on every Linux there is: what the kernel counts in is hidden from processes.
const TICKS: f64 = 100.0;

/// A control group's limit above this is none: the kernel rounds "no limit" to about 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// What the metrics here say, for the documentation: they are made when they are asked for.
pub const DECLARED: &[Declared] = &[
    gauge(
        "process_resident_memory_bytes",
        "Memory of the process that is in RAM.",
        "process_resident_memory_bytes{job=\"roomcast\"}",
    ),
    gauge(
        "process_virtual_memory_bytes",
        "Address space of the process.",
        "process_virtual_memory_bytes",
    ),
    Declared {
        kind: "counter",
        ..gauge(
            "process_cpu_seconds_total",
            "CPU time of the process, user and system.",
            "rate(process_cpu_seconds_total[5m])",
        )
    },
    gauge(
        "process_start_time_seconds",
        "When the process started, Unix time.",
        "time() - process_start_time_seconds",
    ),
    gauge("process_threads", "Threads of the process.", "process_threads"),
    gauge(
        "process_open_fds",
        "Descriptors that are open; each connection takes one.",
        "process_open_fds / process_max_fds",
    ),
    gauge(
        "process_max_fds",
        "Descriptors that the process may open.",
        "process_open_fds / process_max_fds",
    ),
    Declared {
        labels: &[("resource", || vec!["descriptors", "memory"])],
        ..gauge(
            "roomcast_capacity_used_ratio",
            "How much of what the process may take is taken: `descriptors` of its limit, `memory` of its control group's \
             (absent where there is none).",
            "max by (instance) (roomcast_capacity_used_ratio)",
        )
    },
    gauge(
        "roomcast_runtime_tasks",
        "Tasks of the async runtime that have not ended.",
        "roomcast_runtime_tasks",
    ),
    gauge(
        "roomcast_runtime_queue_tasks",
        "Tasks that wait for a worker thread of the runtime in its common queue.",
        "max by (instance) (roomcast_runtime_queue_tasks)",
    ),
    Declared {
        kind: "counter",
        ..gauge(
            "roomcast_runtime_busy_seconds_total",
            "Time that worker threads of the runtime spent with tasks; near the number of threads a second: saturated.",
            "rate(roomcast_runtime_busy_seconds_total[5m]) / roomcast_runtime_workers",
        )
    },
    gauge(
        "roomcast_runtime_workers",
        "Worker threads of the runtime.",
        "roomcast_runtime_workers",
    ),
];

const fn gauge(name: &'static str, help: &'static str, query: &'static str) -> Declared {
    Declared {
        name,
        kind: "gauge",
        help,
        labels: &[],
        buckets: &[],
        query,
    }
}

/// What /proc says of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Usage {
    cpu: f64,
    resident: f64,
    virtual_memory: f64,
    started: f64,
    threads: f64,
    open_fds: f64,
    max_fds: f64,
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The kB of a line such as `VmRSS:     1234 kB`, as bytes.
fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(
        line.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()?
            * 1024,
    )
}

/// Memory of this process that is in RAM, bytes; `None` where there is no /proc.
pub fn resident_bytes() -> Option<u64> {
    kilobytes(&read("/proc/self/status")?, "VmRSS")
}

/// The memory that the process's control group may take, bytes (version 2, else 1); `None` where there is no limit.
pub fn memory_limit_bytes() -> Option<u64> {
    let paths = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let own = own_group().map(|group| format!("/sys/fs/cgroup{group}/memory.max"));
    let limits = own.as_deref().into_iter().chain(paths).filter_map(read);
    limits
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .filter(|limit| *limit < NO_LIMIT)
        .min()
}

/// The path of this process's group in the unified hierarchy; within a container it is `/`.
fn own_group() -> Option<String> {
    let groups = read("/proc/self/cgroup")?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    (group != "/").then(|| group.to_owned())
}

impl Usage {
    fn now() -> Option<Self> {
        let stat = read("/proc/self/stat")?;
        // The name in brackets may hold anything; what follows it are numbers, the first being the third field.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let boot = read("/proc/stat")?
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())?;
        let limits = read("/proc/self/limits")?;
        let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let max_fds = open_files.split_whitespace().next()?.parse().unwrap_or(f64::INFINITY);
        Some(Self {
            cpu: (number(14)? + number(15)?) / TICKS,
            threads: number(20)?,
            started: boot + number(22)? / TICKS,
            virtual_memory: number(23)?,
            resident: resident_bytes()? as f64,
            // The one that reads the folder is not among them afterwards.
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64,
            max_fds,
        })
    }
}

/// Reads all of it whenever the metrics are read.
pub struct Process {
    /// The runtime in which the node was started.
    runtime: Option<tokio::runtime::Handle>,
    descriptions: Vec<Desc>,
}

impl Process {
    /// A collector for the process, and for the runtime it is called in.
    pub fn new() -> Result<Self, prometheus::Error> {
        let describe = |declared: &Declared| {
            let labels = declared.labels.iter().map(|(name, _)| (*name).to_owned()).collect();
            Desc::new(
                declared.name.to_owned(),
                declared.help.to_owned(),
                labels,
                std::collections::HashMap::new(),
            )
        };
        Ok(Self {
            runtime: tokio::runtime::Handle::try_current().ok(),
            descriptions: DECLARED.iter().map(describe).collect::<Result<_, _>>()?,
        })
    }

    fn values(&self) -> Vec<(&'static str, Option<&'static str>, f64)> {
        let mut values = Vec::with_capacity(DECLARED.len() + 1);
        if let Some(usage) = Usage::now() {
            values.extend([
                ("process_resident_memory_bytes", None, usage.resident),
                ("process_virtual_memory_bytes", None, usage.virtual_memory),
                ("process_cpu_seconds_total", None, usage.cpu),
                ("process_start_time_seconds", None, usage.started),
                ("process_threads", None, usage.threads),
                ("process_open_fds", None, usage.open_fds),
                ("process_max_fds", None, usage.max_fds),
                (
                    "roomcast_capacity_used_ratio",
                    Some("descriptors"),
                    usage.open_fds / usage.max_fds,
                ),
            ]);
            if let Some(limit) = memory_limit_bytes() {
                let used = usage.resident / limit as f64;
                values.push(("roomcast_capacity_used_ratio", Some("memory"), used));
            }
        }
        if let Some(runtime) = &self.runtime {
            let metrics = runtime.metrics();
            let busy: Duration = (0..metrics.num_workers())
                .map(|worker| metrics.worker_total_busy_duration(worker))
                .sum();
            values.extend([
                ("roomcast_runtime_tasks", None, metrics.num_alive_tasks() as f64),
                (
                    "roomcast_runtime_queue_tasks",
                    None,
                    metrics.global_queue_depth() as f64,
                ),
                ("roomcast_runtime_busy_seconds_total", None, busy.as_secs_f64()),
                ("roomcast_runtime_workers", None, metrics.num_workers() as f64),
            ]);
        }
        values
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let shown = self.values().into_iter().filter_map(|(name, resource, value)| {
            let declared = DECLARED.iter().find(|declared| declared.name == name)?;
            let mut options = Opts::new(name, declared.help);
            if let Some(resource) = resource {
                options = options.const_label("resource", resource);
            }
            if declared.kind == "counter" {
                let counter = Counter::with_opts(options).ok()?;
                counter.inc_by(value.max(0.0));
                Some(counter.collect())
            } else {
                let gauge = Gauge::with_opts(options).ok()?;
                gauge.set(value);
                Some(gauge.collect())
            }
        });
        shown.flatten().collect()
    }
}

/// Adds it to a registry.
pub(super) fn register(metrics: &prometheus::Registry) -> Result<(), prometheus::Error> {
    metrics.register(Box::new(Process::new()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn the_memory_of_this_process_is_read() {
        let status = "Name:\tx y\nVmSize:\t  300 kB\nVmRSS:\t  120 kB\n";
        assert_eq!(kilobytes(status, "VmRSS"), Some(120 * 1024));
        assert_eq!(kilobytes(status, "VmSwap"), None);
        assert!(resident_bytes().unwrap() > 1024 * 1024);
    }

    #[test]
    fn usage_is_plausible() {
        let usage = Usage::now().unwrap();
        assert!(usage.threads >= 1.0 && usage.open_fds >= 3.0 && usage.max_fds >= usage.open_fds);
        assert!(usage.virtual_memory >= usage.resident && usage.started > 1_500_000_000.0);
    }

    #[tokio::test]
    async fn everything_that_is_declared_is_shown() {
        let text = Metrics::new().unwrap().render();
        for declared in DECLARED {
            let line = format!("# TYPE {} {}", declared.name, declared.kind);
            assert!(text.lines().any(|found| found == line), "`{line}` is not in:\n{text}");
        }
    }
}
