//! The step between neighbouring intensities: images that were cut from one scan were scaled by one number.
//!
//! Scanners and converters store whole numbers times a scale that belongs to the scan, such as 5.98706. It survives
//! cropping, mirroring and any file format, and says which images were one before.

/// Voxels that are looked at, at equal distances.
const SAMPLE: usize = 1 << 18;
/// Fewer different values do not show a step.
const MIN_VALUES: usize = 24;
/// More steps than this between the lowest and the highest value are no steps but real numbers.
const MAX_STEPS: f64 = 65_536.0;
/// How far a value may lie from a whole number of steps.
const TOLERANCE: f64 = 0.02;
/// The smallest gap that is seen may be this many steps or fewer.
const MOST_STEPS_IN_A_GAP: u32 = 6;

/// The step of which all differences of `values` are whole multiples; `None` when there is none, or when it is a
/// number that anybody may have used: of up to four digits, or one part of a whole number (1/255).
///
/// Values come from an `f32`: the step is right to about 1e-7 of itself.
pub fn intensity_step(values: &[f32]) -> Option<f64> {
    let stride = values.len().div_ceil(SAMPLE).max(1);
    let mut distinct: Vec<f32> = values.iter().step_by(stride).copied().filter(|v| v.is_finite()).collect();
    distinct.sort_unstable_by(f32::total_cmp);
    distinct.dedup();
    if distinct.len() < MIN_VALUES {
        return None;
    }
    let first = f64::from(distinct[0]);
    let offsets: Vec<f64> = distinct.iter().map(|value| f64::from(*value) - first).collect();
    let largest = f64::from(distinct[0].abs().max(distinct[distinct.len() - 1].abs()));
    // Neighbours of an f32 this large are 1.2e-7 of it apart: what is not far above that is rounding.
    let rounding = largest * f64::from(f32::EPSILON);
    let gap = offsets.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    if gap < 50.0 * rounding || offsets[offsets.len() - 1] / gap > MAX_STEPS {
        return None;
    }
    let step = (1..=MOST_STEPS_IN_A_GAP).find_map(|parts| fitted(&offsets, gap / f64::from(parts)))?;
    (!is_common(step)).then_some(step)
}

/// The step near `guess` that fits all offsets, which are in ascending order from 0.
fn fitted(offsets: &[f64], guess: f64) -> Option<f64> {
    let mut step = guess;
    let (mut square, mut product) = (0.0, 0.0);
    for &offset in &offsets[1..] {
        let count = (offset / step).round();
        // An offset that is far from a multiple says that the guess is none.
        if count < 1.0 || (offset - count * step).abs() > 0.2 * step {
            return None;
        }
        square += count * count;
        product += count * offset;
        step = product / square;
    }
    let off = |offset: &f64| (offset / step - (offset / step).round()).abs();
    offsets.iter().all(|offset| off(offset) <= TOLERANCE).then_some(step)
}

fn is_common(step: f64) -> bool {
    let near_whole = |value: f64| value >= 0.5 && (value - value.round()).abs() <= 2e-6 * value;
    let digits = 10.0_f64.powi(3 - step.log10().floor() as i32);
    near_whole(step * digits) || near_whole(1.0 / step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(step: f64, offset: f64) -> Vec<f32> {
        (0..4000_u64).map(|at| (offset + step * ((at * at * 31 + at * 7) % 251) as f64) as f32).collect()
    }

    #[track_caller]
    fn check(values: &[f32], expected: Option<f64>) {
        match (intensity_step(values), expected) {
            (Some(found), Some(expected)) => {
                assert!((found / expected - 1.0).abs() < 1e-6, "{found}, expected {expected}");
            }
            (found, expected) => assert_eq!(found, expected),
        }
    }

    #[test]
    fn the_scale_of_a_scan_is_found() {
        check(&levels(5.98706, 0.0), Some(5.98706));
        check(&levels(3112.589, -40000.0), Some(3112.589));
        check(&levels(0.000_123_456, 0.5), Some(0.000_123_456));
        // No two values are one step apart: the gaps are 2, 3, 5 and 7.
        let rare: Vec<f32> = (0..60)
            .map(|at| (1.234_567 * f64::from(at / 4 * 17 + [0, 2, 5, 10][at as usize % 4])) as f32)
            .collect();
        check(&rare, Some(1.234_567));
    }

    #[test]
    fn a_scale_that_anybody_may_use_says_nothing() {
        for step in [1.0, 2.0, 0.5, 0.25, 1.0 / 255.0, 1.0 / 4095.0, 10.0, 0.1, 12.5, 0.003] {
            check(&levels(step, 0.0), None);
        }
    }

    #[test]
    fn real_numbers_and_few_values_have_no_step() {
        let real: Vec<f32> = (0..4000).map(|at| (f64::from(at) * 0.37).sin() as f32).collect();
        check(&real, None);
        check(&[0.0, 5.98706, 5.98706, 0.0], None);
        check(&[], None);
        check(&[f32::NAN; 100], None);
    }

    #[test]
    fn one_value_between_the_steps_and_there_is_none() {
        let mut values = levels(5.98706, 0.0);
        values.push(5.98706 * 10.37);
        check(&values, None);
    }
}
