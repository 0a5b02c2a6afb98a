use super::costs::Costs;
use super::need::nodes_of_room;
use super::*;
use crate::fleet::tally::Percentiles;
use crate::growth::{Found, Rested, Series};

fn found(series: Series, grown: u32, node: f64, redis: f64) -> Found {
    let rate = if series == Series::Rate { grown.into() } else { 100.0 };
    Found {
        series,
        grown,
        messages_per_second: rate,
        node_per_delivery: node / 3.0,
        node_per_message: node,
        redis_per_message: redis,
        worker_per_message: 40.0 + 1000.0 / rate,
        ack: Percentiles::default(),
        delivery: Percentiles::default(),
        clean: true,
    }
}

fn rested(sockets: u32) -> Rested {
    let each = f64::from(sockets);
    Rested {
        sockets,
        node_connects_ms: 7.0 + each,
        redis_connects_ms: each / 2.0,
        node_minute_ms: 30.0 + each * 0.6,
        redis_minute_ms: each * 0.06,
        node_kib: 50_000.0 + each * 20.0,
        redis_kib: 8000.0 + each * 2.0,
    }
}

fn growth() -> Growth {
    Growth {
        machine: "a machine".to_owned(),
        seconds: 1,
        found: vec![
            found(Series::NodesLocal, 1, 200.0, 100.0),
            found(Series::NodesLocal, 4, 230.0, 112.0),
            found(Series::NodesLocal, 8, 270.0, 128.0),
            found(Series::NodesSpread, 4, 350.0, 152.0),
            // A second of the node costs 2000 µs by itself, of Redis 5000.
            found(Series::Rate, 100, 200.0, 100.0),
            found(Series::Rate, 1000, 182.0, 55.0),
            found(Series::RoomSize, 30, 470.0, 100.0),
            found(Series::RoomSize, 3, 200.0, 100.0),
        ],
        resting: vec![rested(500), rested(4000)],
    }
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-6 * expected.abs().max(1.0)
}

#[test]
fn prices_follow_from_differences() {
    let costs = Costs::of(&growth()).unwrap();
    let pairs = [
        (costs.hop, (60.0, 20.0)),
        (costs.node_second, (1000.0, 400.0)),
        (costs.connect, (1000.0, 500.0)),
        (costs.socket_second, (10.0, 1.0)),
        (costs.socket_kib, (20.0, 2.0)),
        ((costs.redis_second, costs.redis_message), (5000.0, 50.0)),
        // Between, beyond and before what was measured: 10 µs a member, without what the node costs by itself.
        ((costs.message(12.0), costs.message(130.0)), (270.0, 1450.0)),
        ((costs.message(1.0), costs.archive), (160.0, 40.0)),
    ];
    for (found, expected) in pairs {
        assert!(
            near(found.0, expected.0) && near(found.1, expected.1),
            "{found:?} {expected:?}"
        );
    }
    assert!(near(costs.node_kib, 50_000.0));
}

#[test]
fn a_measurement_that_lacks_a_series_is_named() {
    let mut growth = growth();
    growth.found.retain(|found| found.series != Series::NodesSpread);
    assert!(Costs::of(&growth).unwrap_err().contains("nodes-spread at 4"));
    growth.resting.pop();
    assert!(Costs::of(&growth).unwrap_err().contains("idle sockets"));
}

#[test]
fn rooms_touch_no_more_nodes_than_they_have_members() {
    assert!(near(nodes_of_room(1.0, 20.0), 1.0));
    assert!(near(nodes_of_room(2.0, 2.0), 1.5));
    assert!(nodes_of_room(1000.0, 3.0) < 3.0);
    assert!(nodes_of_room(4.0, 1000.0) > 3.99);
}

fn crowd(sockets: f64) -> Crowd {
    Crowd {
        sockets,
        rooms_of_user: 3.0,
        members: 3.0,
        messages_per_hour: 36.0,
        asked: 0.0,
        reply_seconds: 10.0,
    }
}

const MACHINE: Machine = Machine {
    cores: 4.0,
    gib: 4.0,
    busy: 0.5,
    back_within: 30.0,
    replies: 32.0,
    event_bytes: 512.0,
};

#[test]
fn needs_follow_the_formulas() {
    let costs = Costs::of(&growth()).unwrap();
    let need = need(&costs, &crowd(10_000.0), &MACHINE).unwrap();
    // 100 messages a second; 1.75 nodes of two hold members of a room of three.
    assert!(near(need.messages, 100.0) && near(need.deliveries, 300.0) && near(need.nodes_of_room, 1.75));
    let cores = (100.0 * (180.0 + 60.0 * 0.75) + 10_000.0 * 10.0 + 2.0 * 1000.0) / 1e6;
    assert!(near(need.node_cores, cores), "{need:?}");
    let back = 10_000.0 / 2.0 / 30.0;
    assert!(near(need.cores_without_one, cores + back * 1000.0 / 1e6));
    assert_eq!((need.nodes, need.primaries, need.workers), (2, 1, 2));
    let redis = 100.0 * (50.0 + 20.0 * 0.75) + 10_000.0 * 1.0 + 2.0 * 400.0 + 5000.0 + back * 500.0;
    assert!(near(need.redis_cores, redis / 1e6));
    let kib = 10_000.0 * 2.0 + 10_000.0 * 1000.0 * 0.5;
    assert!(near(need.redis_gib, kib / 1024.0 / 1024.0));
}

#[test]
fn a_need_bears_the_loss_of_a_node_and_one_node_less_would_not_do() {
    let costs = Costs::of(&growth()).unwrap();
    let mut fewer = 0;
    for sockets in [1e4, 1e5, 3e5, 1e6, 3e6] {
        let need = need(&costs, &crowd(sockets), &MACHINE).unwrap();
        let n = f64::from(need.nodes);
        assert!(need.node_cores <= n * 2.0 && need.node_gib <= 2.8, "{need:?}");
        assert!(need.cores_without_one <= (n - 1.0) * 3.6, "{need:?}");
        assert!(need.nodes >= fewer, "{need:?}");
        fewer = need.nodes;
    }
    assert!(need(&costs, &crowd(1e12), &MACHINE).is_none());
}

#[test]
fn what_was_measured_here_is_whole() {
    let growth: Growth = serde_json::from_str(MEASURED).unwrap();
    Costs::of(&growth).unwrap();
    assert!(growth.found.iter().all(|found| found.clean));
}
