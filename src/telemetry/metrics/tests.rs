use std::collections::HashSet;

use super::*;

#[test]
fn counters_start_at_zero_and_carry_their_help() {
    let text = Metrics::new().unwrap().render();
    for line in [
        "# HELP roomcast_connections Sockets connected now.",
        "roomcast_connections 0",
        "roomcast_deliveries_total 0",
        "roomcast_handshakes_total{result=\"connected\"} 0",
        "roomcast_events_total{event=\"join\",result=\"not_member\"} 0",
        "roomcast_event_duration_seconds_count{event=\"join\"} 0",
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
    // What only a worker knows is no 0 elsewhere.
    assert!(!text.contains("roomcast_gpt_jobs"), "{text}");
}

#[test]
fn two_nodes_of_one_process_count_apart() {
    let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
    one.connections.inc();
    one.blocks_total.inc(["refresh_refused"]);
    assert!(one.render().contains("roomcast_connections 1"));
    assert_eq!(one.blocks_total.get(["refresh_refused"]), 1);
    assert!(other.render().contains("roomcast_connections 0"));
}

#[test]
fn names_tell_kind_and_unit_and_every_metric_is_explained() {
    let mut names = HashSet::new();
    for declared in all() {
        let name = declared.name;
        assert!(names.insert(name), "{name} is declared twice");
        assert!(
            name.starts_with("roomcast_") || name.starts_with("process_"),
            "{name} has no prefix"
        );
        assert_eq!(declared.kind == "counter", name.ends_with("_total"), "{name}");
        if declared.kind == "histogram" {
            assert!(name.ends_with("_seconds") && declared.buckets.is_sorted(), "{name}");
        }
        assert!(
            declared.help.trim_end().ends_with(['.', ')']),
            "{name}: {}",
            declared.help
        );
        assert!(declared.query.contains(name), "{name}: {}", declared.query);
    }
}
