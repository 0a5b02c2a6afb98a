//! A rate over time: straight lines between points.

/// A rate over time. Before the first point it is the first's, after the last the last's; two points at one moment are a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve(Vec<(f64, f64)>);

impl Curve {
    /// The same at any time.
    pub fn flat(rate: f64) -> Self {
        Self(vec![(0.0, rate)])
    }

    /// Lines between `(second, rate)`, at least one; the seconds must not go back.
    pub fn new(points: Vec<(f64, f64)>) -> Result<Self, &'static str> {
        /// A day has fewer turns.
        const POINTS_MAX: usize = 1000;
        if points.is_empty() || points.len() > POINTS_MAX {
            return Err("use 1 to 1000 points");
        }
        let is_fit = |value: f64| value.is_finite() && value >= 0.0;
        if !points.iter().all(|(second, rate)| is_fit(*second) && is_fit(*rate)) {
            return Err("use seconds and rates of at least 0");
        }
        if !points.is_sorted_by(|one, next| one.0 <= next.0) {
            return Err("the seconds go back");
        }
        Ok(Self(points))
    }

    /// The same with all rates multiplied.
    pub fn scaled(&self, by: f64) -> Self {
        Self(self.0.iter().map(|(second, rate)| (*second, rate * by)).collect())
    }

    /// The rate at a second; at a step the one after it.
    pub fn at(&self, second: f64) -> f64 {
        let line = self.lines().find(|line| line.to.0 > second);
        line.map_or(0.0, |line| line.at(second))
    }

    /// The second at which, from `from` on, as much as `amount` will have come together; `None`: never.
    pub fn after(&self, from: f64, amount: f64) -> Option<f64> {
        let mut left = amount;
        for line in self.lines().filter(|line| line.to.0 > from) {
            let start = line.from.0.max(from);
            let (rate, end) = (line.at(start), line.to);
            let lasts = end.0 - start;
            // The last line has no end, and what is nothing for ever adds nothing.
            let comes = if end.1 + rate > 0.0 {
                (rate + end.1) / 2.0 * lasts
            } else {
                0.0
            };
            if comes >= left && comes > 0.0 {
                let slope = if lasts.is_finite() { (end.1 - rate) / lasts } else { 0.0 };
                // rate·t + slope·t²/2 = left, solved so that a slope of nothing divides by nothing odd.
                let root = (rate * rate + 2.0 * slope * left).max(0.0).sqrt();
                return Some(start + 2.0 * left / (rate + root));
            }
            left -= comes;
        }
        None
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let (first, last) = (self.0[0], self.0[self.0.len() - 1]);
        let before = Line {
            from: (0.0, first.1),
            to: first,
        };
        let after = Line {
            from: last,
            to: (f64::INFINITY, last.1),
        };
        let between = self.0.windows(2).map(|two| Line {
            from: two[0],
            to: two[1],
        });
        std::iter::once(before).chain(between).chain([after])
    }
}

/// A straight part.
#[derive(Clone, Copy)]
struct Line {
    from: (f64, f64),
    to: (f64, f64),
}

impl Line {
    fn at(&self, second: f64) -> f64 {
        let lasts = self.to.0 - self.from.0;
        if !lasts.is_finite() || lasts <= 0.0 {
            return self.from.1;
        }
        self.from.1 + (self.to.1 - self.from.1) * (second - self.from.0) / lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes in each of the first seconds.
    fn counts(curve: &Curve, seconds: usize) -> Vec<usize> {
        let mut counts = vec![0; seconds];
        let mut at = 0.0;
        while let Some(next) = curve.after(at, 1.0).filter(|next| *next < seconds as f64) {
            counts[next as usize] += 1;
            at = next;
        }
        counts
    }

    #[test]
    fn messages_follow_the_rate() {
        assert_eq!(counts(&Curve::flat(50.5), 2), [50, 50]);
        let day = Curve::new(vec![(1.0, 0.0), (3.0, 100.0), (3.0, 10.0), (4.0, 10.0), (4.0, 0.0)]).unwrap();
        let day = counts(&day.scaled(10.0), 7);
        assert_eq!(day[0], 0);
        for (count, expected) in day[1..].iter().zip([250_i64, 750, 100, 0, 0, 0]) {
            assert!((*count as i64 - expected).abs() <= 1, "{day:?}");
        }
    }

    #[test]
    fn a_pause_is_leapt_over() {
        let curve = Curve::new(vec![(0.0, 1.0), (2.0, 1.0), (2.0, 0.0), (9.0, 0.0), (9.0, 2.0)]).unwrap();
        assert_eq!((curve.at(1.0), curve.at(2.0), curve.at(10.0)), (1.0, 0.0, 2.0));
        let next = curve.after(1.5, 1.0).unwrap();
        assert!((next - 9.25).abs() < 1e-9, "{next}");
        assert_eq!(Curve::flat(0.0).after(0.0, 1.0), None);
    }

    #[test]
    fn odd_points_are_refused() {
        for points in [
            vec![],
            vec![(1.0, 1.0), (0.0, 1.0)],
            vec![(0.0, -1.0)],
            vec![(f64::NAN, 1.0)],
        ] {
            assert!(Curve::new(points.clone()).is_err(), "{points:?}");
        }
    }
}
