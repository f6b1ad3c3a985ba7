//! From numbers to places on the page: ranges that end at round numbers, and ticks in between.

use super::figures::fixed;

/// A linear axis from `low` at `start` to `high` at `end`, both ends in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) range: Range,
    pub(super) start: f64,
    pub(super) end: f64,
}

/// Two numbers, and the round step between ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub(super) low: f64,
    pub(super) high: f64,
    step: f64,
}

impl Range {
    /// The least range with both ends on a tick that holds all finite values; `None` when there are none. `ticks` is
    /// about how many steps there are.
    pub(super) fn around(values: impl Iterator<Item = f64>, ticks: usize) -> Option<Self> {
        let ends = |ends: Option<(f64, f64)>, value: f64| {
            let (low, high) = ends.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        };
        let (low, high) = values.filter(|value| value.is_finite()).fold(None, ends)?;
        // All alike: some room on both sides.
        let margin = if high > low { 0.0 } else { low.abs().max(1.0) * 0.05 };
        let (low, high) = (low - margin, high + margin);
        let step = round_step((high - low) / ticks as f64);
        // The tolerance keeps rounding errors from adding a step.
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        Some(Self { low: first * step, high: last * step, step })
    }

    /// The same for values that lie between 0 and 1 by definition.
    pub(super) fn of_shares(values: impl Iterator<Item = f64>, ticks: usize) -> Option<Self> {
        let range = Self::around(values.chain([1.0]), ticks)?;
        Some(Self { low: range.low.max(0.0), high: range.high.min(1.0), ..range })
    }

    /// From the first to the last of `count` things counted from 1, with ticks at whole numbers.
    pub(super) fn of_counts(count: usize, ticks: usize) -> Self {
        let step = round_step((count as f64 / ticks as f64).max(1.0)).max(1.0);
        // A single one lies in the middle.
        let margin = if count > 1 { 0.0 } else { 0.5 };
        Self { low: 1.0 - margin, high: count.max(1) as f64 + margin, step }
    }

    /// Multiples of the step within the range, and how to write them.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let decimals = (0..12).find(|decimals| is_whole(self.step * 10_f64.powi(*decimals))).unwrap_or(12);
        let (first, last) = ((self.low / self.step - 1e-9).ceil(), (self.high / self.step + 1e-9).floor());
        let count = (last - first).max(0.0) as usize;
        let tick = |index: usize| {
            let value = (first + index as f64) * self.step;
            (value, fixed(value, decimals as usize))
        };
        (0..=count).map(tick).collect()
    }
}

impl Scale {
    /// Where a value lies, in pixels.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = (value - self.range.low) / (self.range.high - self.range.low);
        self.start + share * (self.end - self.start)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powi(least.log10().floor() as i32);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() < 1e-6
}

/// A length in pixels, to a tenth.
pub(super) fn px(length: f64) -> String {
    let tenths = (length * 10.0).round() / 10.0;
    // Adding zero turns -0 into 0.
    (tenths + 0.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: Range, expected: &[&str]) {
        let ticks: Vec<String> = range.ticks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(ticks, expected);
    }

    #[test]
    fn ticks_are_round_numbers_and_hold_all_values() {
        let range = |values: &[f64]| Range::around(values.iter().copied(), 4).expect("some values");
        check(range(&[0.13, 0.91]), &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(range(&[-0.93, -0.2]), &["−1.0", "−0.8", "−0.6", "−0.4", "−0.2"]);
        check(range(&[3.0, 1234.0]), &["0", "500", "1000", "1500"]);
        check(range(&[0.1, 0.3]), &["0.10", "0.15", "0.20", "0.25", "0.30"]);
    }

    #[test]
    fn equal_values_get_room() {
        let range = Range::around([0.5; 3].into_iter(), 4).expect("some values");
        assert!(range.low < 0.5 && range.high > 0.5, "{range:?}");
        let range = Range::of_shares([1.0; 3].into_iter(), 4).expect("some values");
        assert!(range.low < 1.0 && range.high == 1.0, "{range:?}");
    }

    #[test]
    fn shares_end_at_one() {
        check(Range::of_shares([0.71, 0.93].into_iter(), 4).expect("values"), &["0.7", "0.8", "0.9", "1.0"]);
        check(
            Range::of_shares([0.0].into_iter(), 5).expect("values"),
            &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"],
        );
    }

    #[test]
    fn values_that_are_no_numbers_do_not_count() {
        assert_eq!(Range::around([f64::NAN, f64::INFINITY].into_iter(), 4), None);
        check(Range::around([f64::NAN, 1.0, 2.0].into_iter(), 2).expect("values"), &["1.0", "1.5", "2.0"]);
    }

    #[test]
    fn counts_have_whole_ticks() {
        check(Range::of_counts(6, 4), &["2", "4", "6"]);
        check(Range::of_counts(3, 4), &["1", "2", "3"]);
        check(Range::of_counts(1000, 4), &["500", "1000"]);
        check(Range::of_counts(1, 4), &["1"]);
    }

    #[test]
    fn the_ends_of_the_range_are_the_ends_of_the_axis() {
        let range = Range::around([0.0, 10.0].into_iter(), 5).expect("values");
        let scale = Scale { range, start: 200.0, end: 100.0 };
        assert_eq!((scale.place(0.0), scale.place(5.0), scale.place(10.0)), (200.0, 150.0, 100.0));
    }

    #[test]
    fn lengths_have_one_decimal_at_most() {
        assert_eq!((px(12.34), px(-0.01), px(7.0)), ("12.3".into(), "0".into(), "7".into()));
    }
}
