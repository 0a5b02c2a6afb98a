//! How many sockets a node sends away, from what all nodes say of themselves. No IO.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::redis::Load;

/// Sockets above the mean below which it is not worth anybody's reconnect.
const EXCESS_MIN: usize = 25;
/// A step begun above the threshold ends at this part of it, so that a number that wavers does not start another one.
const ENOUGH: f64 = 0.25;
/// The part of what was sent away by which the excess must have shrunk; round robin over many nodes takes away a few
/// percent less than it should, a load balancer that sends everybody back takes away nothing.
const EFFECT_MIN: f64 = 0.1;
/// A pause longer than this between two looks does not add up: the rate holds for any minute.
const LOOK_MAX: Duration = Duration::from_secs(15);

/// What a node knows of the balance, and what it does about it.
#[derive(Debug)]
pub struct Balance {
    per_minute: f64,
    above: f64,
    after: Duration,
    nodes: BTreeSet<String>,
    /// Since when the nodes are the same and everything is well.
    steady_since: Option<Instant>,
    looked: Option<Instant>,
    shedding: Option<Shedding>,
    is_futile: bool,
}

/// What has been done so far about one excess.
#[derive(Debug)]
struct Shedding {
    first_excess: usize,
    sent: usize,
}

/// What a node sees of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Live nodes.
    pub nodes: usize,
    /// Own sockets divided by the mean.
    pub ratio: f64,
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// How many sockets to send away now.
    pub count: usize,
    /// What was seen; nothing where not all is known.
    pub view: Option<View>,
    /// Whether it has given up until a node comes or goes.
    pub is_futile: bool,
}

impl Balance {
    /// Nothing is known yet; `None` where it is switched off.
    pub fn new(config: &Config) -> Option<Self> {
        let per_minute = f64::from(config.rebalance);
        (per_minute > 0.0).then(|| Self {
            per_minute,
            above: f64::from(config.rebalance_above),
            after: *config.rebalance_after,
            nodes: BTreeSet::new(),
            steady_since: None,
            looked: None,
            shedding: None,
            is_futile: false,
        })
    }

    /// Looks once: `name` is this node's and `own` its sockets now; no `loads` while something is not well.
    pub fn look(&mut self, now: Instant, name: &str, own: usize, loads: Option<&[(String, Option<Load>)]>) -> Step {
        let view = loads.and_then(|loads| view(name, own, loads));
        let count = self.count(now, own, loads, view);
        self.looked = Some(now);
        if let Some(shedding) = &mut self.shedding {
            shedding.sent += count;
        }
        Step {
            count,
            view,
            is_futile: self.is_futile,
        }
    }

    fn count(
        &mut self,
        now: Instant,
        own: usize,
        loads: Option<&[(String, Option<Load>)]>,
        view: Option<View>,
    ) -> usize {
        let (Some(loads), Some(view)) = (loads, view) else {
            self.begin_anew(None);
            return 0;
        };
        if loads.iter().any(|(_, load)| load.is_some_and(|load| load.is_draining)) {
            self.begin_anew(None);
            return 0;
        }
        let nodes: BTreeSet<String> = loads.iter().map(|(name, _)| name.clone()).collect();
        if nodes != self.nodes {
            self.nodes = nodes;
            self.is_futile = false;
            self.begin_anew(Some(now));
            return 0;
        }
        if now.duration_since(*self.steady_since.get_or_insert(now)) < self.after || self.is_futile {
            return 0;
        }
        let mean = own as f64 / view.ratio.max(f64::MIN_POSITIVE);
        // Never below the mean: rounded up, so that the last one stays.
        let excess = own.saturating_sub(mean.ceil() as usize);
        match &self.shedding {
            None if view.ratio > 1.0 + self.above && excess >= EXCESS_MIN => {
                self.shedding = Some(Shedding {
                    first_excess: excess,
                    sent: 0,
                });
            }
            None => return 0,
            Some(_) if view.ratio <= 1.0 + self.above * ENOUGH => {
                self.shedding = None;
                return 0;
            }
            Some(shedding) if shedding.has_no_effect(excess) => {
                tracing::warn!(
                    sent_away = shedding.sent,
                    excess,
                    "sockets that this node sends away come back to it, so it keeps them until a node comes or goes; let the load balancer choose the node with the fewest connections"
                );
                self.is_futile = true;
                self.shedding = None;
                return 0;
            }
            Some(_) => {}
        }
        let elapsed = self.looked.map_or(Duration::ZERO, |looked| now.duration_since(looked));
        let allowed = own as f64 * self.per_minute * elapsed.min(LOOK_MAX).as_secs_f64() / 60.0;
        (allowed as usize).max(1).min(excess)
    }

    fn begin_anew(&mut self, steady_since: Option<Instant>) {
        self.steady_since = steady_since;
        self.shedding = None;
    }
}

impl Shedding {
    fn has_no_effect(&self, excess: usize) -> bool {
        let gained = self.first_excess as f64 - excess as f64;
        self.sent >= self.first_excess && gained < self.sent as f64 * EFFECT_MIN
    }
}

/// How this node stands; `None` where a node is not known, itself among them, or where nobody has any socket.
fn view(name: &str, own: usize, loads: &[(String, Option<Load>)]) -> Option<View> {
    let mut total = 0;
    for (node, load) in loads {
        // What it wrote itself is some seconds old.
        total += if node == name { own } else { (*load)?.sockets };
    }
    let is_known = loads.iter().any(|(node, _)| node == name);
    let mean = total as f64 / loads.len().max(1) as f64;
    (is_known && mean > 0.0).then(|| View {
        nodes: loads.len(),
        ratio: own as f64 / mean,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source};

    /// Looks are as far apart as in the node.
    const LOOK: Duration = Duration::from_secs(12);

    fn balance() -> Balance {
        let source = Source::from_pairs([
            ("JWT_SECRET", "x".repeat(32)),
            ("AUTH_URL", "http://127.0.0.1:1".to_owned()),
            ("API_URL", "http://127.0.0.1:1".to_owned()),
            ("VISION_APP_INFO", "Vision".to_owned()),
        ]);
        Balance::new(&Config::read(&source).unwrap()).unwrap()
    }

    fn loads(sockets: &[usize]) -> Vec<(String, Option<Load>)> {
        let load = |sockets| Load {
            sockets,
            is_draining: false,
        };
        let named = sockets.iter().enumerate();
        named
            .map(|(n, sockets)| (format!("n{n}"), Some(load(*sockets))))
            .collect()
    }

    /// A balance that has seen these loads for long enough, and the time.
    fn settled(sockets: &[usize]) -> (Balance, Instant) {
        let (mut balance, now) = (balance(), Instant::now());
        let own = sockets[0];
        assert_eq!(balance.look(now, "n0", own, Some(&loads(sockets))).count, 0);
        assert_eq!(balance.look(now + LOOK, "n0", own, Some(&loads(sockets))).count, 0);
        let now = now + balance.after;
        balance.looked = Some(now - LOOK);
        (balance, now)
    }

    fn settled_count(sockets: &[usize]) -> usize {
        let (mut balance, now) = settled(sockets);
        balance.look(now, "n0", sockets[0], Some(&loads(sockets))).count
    }

    #[test]
    fn equal_nodes_and_small_differences_stay_as_they_are() {
        assert_eq!(settled_count(&[1000, 1000, 1000]), 0);
        assert_eq!(settled_count(&[1200, 1000, 900]), 0, "within the threshold");
        assert_eq!(settled_count(&[30, 0]), 0, "too few to be worth it");
        assert_eq!(settled_count(&[1000]), 0, "nowhere to go");
        assert_eq!(settled_count(&[0, 0]), 0);
        assert_eq!(settled_count(&[0, 1000]), 0);
    }

    #[test]
    fn what_is_sent_away_is_bounded_by_the_rate() {
        // A tenth a minute, seen every 12 s.
        assert_eq!(settled_count(&[3000, 3000, 3000, 0]), 60);
        assert_eq!(settled_count(&[100_000, 0]), 2000);
    }

    #[test]
    fn nodes_converge_and_none_falls_below_the_mean() {
        let mut sockets = vec![3000, 3000, 3000, 0];
        let mut now = Instant::now();
        let mut balances: Vec<_> = (0..4).map(|_| balance()).collect();
        for _ in 0..400 {
            now += LOOK;
            let seen = loads(&sockets);
            let sent: Vec<usize> = (0..4)
                .map(|n| balances[n].look(now, &format!("n{n}"), sockets[n], Some(&seen)).count)
                .collect();
            // Round robin: everybody gets the same, also those who sent.
            let total: usize = sent.iter().sum();
            for n in 0..4 {
                sockets[n] = sockets[n] - sent[n] + total / 4 + usize::from(n < total % 4);
                assert!(n == 3 || sockets[n] >= 2250, "{sockets:?}");
            }
        }
        assert!(
            sockets[3] > 1800 && sockets.iter().sum::<usize>() == 9000,
            "{sockets:?}"
        );
        let rest: Vec<_> = balances.iter().filter(|balance| balance.shedding.is_some()).collect();
        assert!(rest.is_empty(), "{rest:?}");
        assert!(balances.iter().all(|balance| !balance.is_futile));
    }

    #[test]
    fn it_gives_up_where_everybody_comes_back_and_tries_again_with_another_node() {
        let sockets = [3000, 0];
        let (mut balance, mut now) = settled(&sockets);
        let mut sent = 0;
        for _ in 0..1000 {
            now += LOOK;
            sent += balance.look(now, "n0", 3000, Some(&loads(&sockets))).count;
        }
        assert!(balance.is_futile && (1500..1600).contains(&sent), "{sent}");
        let three = loads(&[3000, 0, 0]);
        assert_eq!(balance.look(now, "n0", 3000, Some(&three)).count, 0);
        now += balance.after;
        assert!(!balance.is_futile && balance.look(now, "n0", 3000, Some(&three)).count > 0);
    }

    #[test]
    fn nothing_moves_while_a_node_drains_or_is_unknown_or_redis_is_not_well() {
        let sockets = [3000, 0, 0];
        let mut draining = loads(&sockets);
        draining[1].1 = Some(Load {
            sockets: 0,
            is_draining: true,
        });
        let mut unknown = loads(&sockets);
        unknown[1].1 = None;
        let stranger: Vec<_> = loads(&sockets).split_off(1);
        for unwell in [Some(draining), Some(unknown), Some(stranger), None] {
            let (mut balance, mut now) = settled(&sockets);
            assert!(balance.look(now, "n0", 3000, Some(&loads(&sockets))).count > 0);
            now += LOOK;
            assert_eq!(balance.look(now, "n0", 3000, unwell.as_deref()).count, 0, "{unwell:?}");
            now += LOOK;
            let again = balance.look(now, "n0", 3000, Some(&loads(&sockets))).count;
            assert_eq!(again, 0, "it waits again, {unwell:?}");
            // One with the strangers' names alone is a change of nodes; it counts from its end.
            now += balance.after + LOOK;
            balance.look(now, "n0", 3000, Some(&loads(&sockets)));
            now += balance.after;
            assert!(
                balance.look(now, "n0", 3000, Some(&loads(&sockets))).count > 0,
                "{unwell:?}"
            );
        }
    }
}
