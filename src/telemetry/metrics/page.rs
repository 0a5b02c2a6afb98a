//! The reference page, made of the declarations.

use std::fmt::Write as _;

use super::all;

const HEAD: &str = "# Metrics

`GET /metrics` on the operations listener (`ROOMCAST_OPS_LISTEN`), in Prometheus' text format, of nodes and of workers. Made
of the declarations in `src/telemetry/` by `make metrics`: change it there.

Counters start at 0, so `rate` and `increase` see the first one. Labels have the values listed here and no others; no label
names a user, a room or an address. A figure of the whole cluster is read from Redis by every worker: take the `max`, not the
`sum`. The way of a message is counted at each step, accepted, published, received, delivered and, where the bus lost something,
repaired, so what is missing between two of them shows where it went.
";

/// The page, as it lies in `docs/metrics.md`.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for declared in all() {
        let _written = write!(
            page,
            "\n## `{}`\n\n{} · {}\n",
            declared.name,
            declared.kind,
            declared.help.trim()
        );
        for (label, values) in declared.labels {
            let values: Vec<String> = values().iter().map(|value| format!("`{value}`")).collect();
            if values.is_empty() {
                let _written = writeln!(page, "\n* label `{label}`: see above");
            } else {
                let _written = writeln!(page, "\n* label `{label}`: {}", values.join(", "));
            }
        }
        if !declared.buckets.is_empty() {
            let limits: Vec<String> = declared.buckets.iter().map(f64::to_string).collect();
            let _written = writeln!(page, "\n* buckets: {}", limits.join(", "));
        }
        let _written = writeln!(page, "\n```promql\n{}\n```", declared.query);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_documentation_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == page(), "docs/metrics.md is stale: run `make metrics`");
    }
}
