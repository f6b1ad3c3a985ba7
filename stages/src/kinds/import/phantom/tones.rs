//! Gives the voxels of a channel the distribution of intensities that an inspection measured, and keeps their order.

use super::likeness::Tones;

/// The quantiles between which intensities go up in straight lines.
const PLACES: [f64; 10] = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0];
/// In how many steps each quantile that was not measured is looked for, and how often.
const STEPS: usize = 32;
const ROUNDS: usize = 8;

/// Replaces every value by the intensity of its rank: minimum, maximum and the percentiles 1, 50 and 99 become those of
/// `tones`, mean and standard deviation as near as the five quantiles between them allow.
pub(super) fn tone(values: &[f64], tones: &Tones, whole: bool) -> Vec<f32> {
    let curve = Curve::fit(tones);
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    order.sort_unstable_by(|a, b| {
        let of = |index: &u32| values[*index as usize];
        of(a).total_cmp(&of(b)).then(a.cmp(b))
    });
    let last = (values.len().max(2) - 1) as f64;
    let mut toned = vec![0.0_f32; values.len()];
    for (rank, index) in order.into_iter().enumerate() {
        let value = curve.at(rank as f64 / last);
        toned[index as usize] = if whole { value.round() } else { value } as f32;
    }
    toned
}

/// Intensities at [`PLACES`].
struct Curve([f64; 10]);

impl Curve {
    /// One with nearly the mean and the standard deviation: each free quantile in turn takes the step that is best, until
    /// none gets better.
    fn fit(tones: &Tones) -> Self {
        let miss = |shares: &[f64; 5]| {
            let (mean, sd) = Self::of(tones, shares).moments();
            (mean - tones.mean) * (mean - tones.mean) + (sd - tones.sd) * (sd - tones.sd)
        };
        let mut shares = [0.25, 0.5, 0.5, 0.75, 0.25];
        let mut least = miss(&shares);
        for _ in 0..ROUNDS {
            let before = least;
            for free in 0..shares.len() {
                for step in 0..=STEPS {
                    let mut other = shares;
                    other[free] = step as f64 / STEPS as f64;
                    let missed = miss(&other);
                    if missed < least {
                        (least, shares) = (missed, other);
                    }
                }
            }
            if least >= before {
                break;
            }
        }
        Self::of(tones, &shares)
    }

    /// `shares`: how far the quantiles 0.05, 0.25, 0.75, 0.95 and 0.999 are between those beside them.
    fn of(tones: &Tones, shares: &[f64; 5]) -> Self {
        let [min, low, median, high, max] = tones.quantiles;
        let between = |from: f64, to: f64, share: f64| from + (to - from) * share;
        let first = between(low, median, shares[1]);
        let third = between(median, high, shares[2]);
        let (below, above) = (between(low, first, shares[0]), between(third, high, shares[3]));
        Self([min, low, below, first, median, third, above, high, between(high, max, shares[4]), max])
    }

    fn pieces(&self) -> impl Iterator<Item = ([f64; 2], [f64; 2])> {
        (1..PLACES.len()).map(|end| ([PLACES[end - 1], PLACES[end]], [self.0[end - 1], self.0[end]]))
    }

    /// Mean and standard deviation of what is spread evenly over all quantiles.
    fn moments(&self) -> (f64, f64) {
        let mean: f64 = self.pieces().map(|([from, to], [low, high])| (to - from) * (low + high) / 2.0).sum();
        let variance: f64 = self
            .pieces()
            .map(|([from, to], ends)| {
                let [low, high] = ends.map(|value| value - mean);
                (to - from) * (low * low + low * high + high * high) / 3.0
            })
            .sum();
        (mean, variance.max(0.0).sqrt())
    }

    fn at(&self, place: f64) -> f64 {
        let mut pieces = self.pieces();
        let found = pieces.find(|([_, to], _)| place <= *to);
        let ([from, to], [low, high]) = found.unwrap_or(([0.0, 1.0], [self.0[9]; 2]));
        low + (high - low) * (place - from) / (to - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_the_quantiles_that_were_asked_for_and_nearly_the_moments() {
        let cases = [
            // An MRI with a long tail, a CT with air, a channel that is half background.
            ([0.0, 3.0, 361.0, 900.0, 2100.0], 380.0, 210.0),
            ([-1024.0, -1020.0, -820.0, 300.0, 1500.0], -560.0, 430.0),
            ([0.0, 0.0, 0.0, 180.0, 255.0], 40.0, 60.0),
        ];
        let values: Vec<f64> = (0..20_001).map(|index| f64::from(index * 7919 % 20_001)).collect();
        for (quantiles, mean, sd) in cases {
            let toned = tone(&values, &Tones { quantiles, mean, sd }, false);
            let mut sorted: Vec<f64> = toned.iter().map(|value| f64::from(*value)).collect();
            sorted.sort_by(f64::total_cmp);
            for (place, expected) in [(0, 0), (200, 1), (10_000, 2), (19_800, 3), (20_000, 4)] {
                assert!((sorted[place] - quantiles[expected]).abs() < 0.5, "{} at {place}", sorted[place]);
            }
            let own = sorted.iter().sum::<f64>() / sorted.len() as f64;
            let variance = sorted.iter().map(|value| (value - own) * (value - own)).sum::<f64>();
            let own_sd = (variance / sorted.len() as f64).sqrt();
            assert!((own - mean).abs() < 0.05 * sd && (own_sd - sd).abs() < 0.05 * sd, "{own} ± {own_sd}");
        }
    }

    #[test]
    fn the_order_of_voxels_stays() {
        let tones = Tones { quantiles: [0.0, 1.0, 50.0, 90.0, 100.0], mean: 48.0, sd: 25.0 };
        let toned = tone(&[3.0, 1.0, 2.0, 5.0, 4.0], &tones, true);
        assert_eq!((toned[1], toned[3]), (0.0, 100.0));
        assert!(toned[2] < toned[0] && toned[0] < toned[4]);
        assert!(toned.iter().all(|value| value.fract() == 0.0));
        assert_eq!(tone(&[1.0], &tones, false), [0.0]);
    }

    #[test]
    fn a_constant_channel_stays_constant() {
        let tones = Tones { quantiles: [7.0; 5], mean: 7.0, sd: 0.0 };
        assert_eq!(tone(&[3.0, 1.0, 2.0], &tones, false), [7.0; 3]);
    }
}
