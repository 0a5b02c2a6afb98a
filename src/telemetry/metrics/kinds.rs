//! What a metric can be, and how one is registered from its declaration.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// A label and the values it can have.
pub type Label = (&'static str, fn() -> Vec<&'static str>);

/// One metric, as it is declared and documented.
#[derive(Debug, Clone, Copy)]
pub struct Declared {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Its labels; one without values is described by the help.
    pub labels: &'static [Label],
    /// Upper limits of its buckets, where it has some.
    pub buckets: &'static [f64],
    /// A query that one would look at.
    pub query: &'static str,
}

impl Declared {
    fn options(&self) -> Opts {
        Opts::new(self.name, self.help.trim())
    }

    fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|(name, _)| *name).collect()
    }

    fn histogram_options(&self) -> HistogramOpts {
        HistogramOpts::new(self.name, self.help.trim()).buckets(self.buckets.to_vec())
    }
}

/// A type that a declaration can name.
pub trait Kind: Sized {
    /// Its word in Prometheus' text format.
    const WORD: &'static str;

    /// Registers the metric, at 0 where it has values already.
    fn register(registry: &Registry, declared: &Declared) -> Result<Self, prometheus::Error>;
}

fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Kind for IntGauge {
    const WORD: &'static str = "gauge";

    fn register(registry: &Registry, declared: &Declared) -> Result<Self, prometheus::Error> {
        add(registry, Self::with_opts(declared.options())?)
    }
}

impl Kind for Gauge {
    const WORD: &'static str = "gauge";

    fn register(registry: &Registry, declared: &Declared) -> Result<Self, prometheus::Error> {
        add(registry, Self::with_opts(declared.options())?)
    }
}

impl Kind for IntCounter {
    const WORD: &'static str = "counter";

    fn register(registry: &Registry, declared: &Declared) -> Result<Self, prometheus::Error> {
        add(registry, Self::with_opts(declared.options())?)
    }
}

impl Kind for Histogram {
    const WORD: &'static str = "histogram";

    fn register(registry: &Registry, declared: &Declared) -> Result<Self, prometheus::Error> {
        add(registry, Self::with_opts(declared.histogram_options())?)
    }
}

/// Metrics that share a name and differ in `N` labels. Those of the declared values are made once and found by their place,
/// without a lock or a hash: they are used for every event.
#[derive(Debug, Clone)]
struct Family<V, M, const N: usize> {
    values: [Vec<&'static str>; N],
    /// Of every combination, the last label's values side by side.
    members: Vec<M>,
    all: V,
}

impl<V, M, const N: usize> Family<V, M, N> {
    fn new(all: V, labels: &[Label], make: impl Fn(&V, &[&str; N]) -> M) -> Self {
        let values: [Vec<&'static str>; N] = std::array::from_fn(|n| labels[n].1());
        let count = values.iter().map(Vec::len).product();
        let members = (0..count).map(|place| {
            let mut rest = place;
            let mut chosen = [""; N];
            for (label, values) in values.iter().enumerate().rev() {
                chosen[label] = values[rest % values.len()];
                rest /= values.len();
            }
            make(&all, &chosen)
        });
        Self {
            members: members.collect(),
            values,
            all,
        }
    }

    /// The member of these values; `None` where one was not declared.
    fn find(&self, labels: [&'static str; N]) -> Option<&M> {
        let mut place = 0;
        for (values, label) in self.values.iter().zip(labels) {
            place = place * values.len() + values.iter().position(|value| *value == label)?;
        }
        self.members.get(place)
    }
}

/// Counters that share a name and differ in `N` labels, whose values come from a fixed set.
#[derive(Debug, Clone)]
pub struct Labelled<const N: usize>(Family<IntCounterVec, IntCounter, N>);

impl<const N: usize> Labelled<N> {
    /// Counts one.
    pub fn inc(&self, labels: [&'static str; N]) {
        self.add(labels, 1);
    }

    /// Counts `count`.
    pub fn add(&self, labels: [&'static str; N], count: u64) {
        match self.0.find(labels) {
            Some(counter) => counter.inc_by(count),
            None => self.0.all.with_label_values(&labels).inc_by(count),
        }
    }

    /// The count so far.
    pub fn get(&self, labels: [&'static str; N]) -> u64 {
        self.0.all.with_label_values(&labels).get()
    }
}

impl<const N: usize> Kind for Labelled<N> {
    const WORD: &'static str = "counter";

    fn register(registry: &Registry, declared: &Declared) -> Result<Self, prometheus::Error> {
        let all = add(
            registry,
            IntCounterVec::new(declared.options(), &declared.label_names())?,
        )?;
        Ok(Self(Family::new(all, declared.labels, |all, values| {
            all.with_label_values(values)
        })))
    }
}

/// Histograms that share a name and differ in one label, whose values come from a fixed set.
#[derive(Debug, Clone)]
pub struct Timed(Family<HistogramVec, Histogram, 1>);

impl Timed {
    /// The histogram of a value, to be kept by those who use it again and again.
    pub fn of(&self, label: &'static str) -> Histogram {
        match self.0.find([label]) {
            Some(histogram) => histogram.clone(),
            None => self.0.all.with_label_values(&[label]),
        }
    }

    /// Notes how long something took.
    pub fn observe(&self, label: &'static str, took: std::time::Duration) {
        match self.0.find([label]) {
            Some(histogram) => histogram.observe(took.as_secs_f64()),
            None => self.0.all.with_label_values(&[label]).observe(took.as_secs_f64()),
        }
    }
}

impl Kind for Timed {
    const WORD: &'static str = "histogram";

    fn register(registry: &Registry, declared: &Declared) -> Result<Self, prometheus::Error> {
        let all = HistogramVec::new(declared.histogram_options(), &declared.label_names())?;
        let all = add(registry, all)?;
        Ok(Self(Family::new(all, declared.labels, |all, values| {
            all.with_label_values(values)
        })))
    }
}

/// Figures that not every process knows: each is shown from when it was first set, until it is withdrawn.
#[derive(Debug, Clone)]
pub struct Known<const N: usize>(GaugeVec);

impl<const N: usize> Known<N> {
    /// Shows a value.
    pub fn set(&self, labels: [&'static str; N], value: f64) {
        self.0.with_label_values(&labels).set(value);
    }

    /// Shows none any more: a figure that nobody can read now must not look like one.
    pub fn withdraw(&self) {
        self.0.reset();
    }
}

impl<const N: usize> Kind for Known<N> {
    const WORD: &'static str = "gauge";

    fn register(registry: &Registry, declared: &Declared) -> Result<Self, prometheus::Error> {
        let all = GaugeVec::new(declared.options(), &declared.label_names())?;
        Ok(Self(add(registry, all)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Declared = Declared {
        name: "two_total",
        kind: "counter",
        help: "Two labels.",
        labels: &[("a", || vec!["x", "y"]), ("b", || vec!["1", "2", "3"])],
        buckets: &[],
        query: "",
    };

    #[test]
    fn every_combination_is_there_from_the_start_and_is_counted_at_its_place() {
        let registry = Registry::new();
        let counters = Labelled::<2>::register(&registry, &TWO).unwrap();
        assert_eq!(registry.gather()[0].get_metric().len(), 6);
        counters.add(["y", "1"], 5);
        counters.inc(["x", "3"]);
        counters.inc(["z", "1"]);
        for (labels, count) in [(["y", "1"], 5), (["x", "3"], 1), (["z", "1"], 1), (["x", "1"], 0)] {
            assert_eq!(counters.get(labels), count, "{labels:?}");
        }
    }

    #[test]
    fn a_figure_that_is_not_known_is_not_shown() {
        let registry = Registry::new();
        let declared = Declared {
            name: "figure",
            labels: &[],
            ..TWO
        };
        let figure = Known::<0>::register(&registry, &declared).unwrap();
        assert!(registry.gather().is_empty());
        figure.set([], 2.5);
        assert_eq!(registry.gather().len(), 1);
        figure.withdraw();
        assert!(registry.gather().is_empty());
    }
}
