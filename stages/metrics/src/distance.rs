//! The exact Euclidean distance transform of a box with voxels of any size.

/// Squared distances in mm² from every point of a box to the nearest feature; infinite where there is none.
///
/// `features`: `[z, y, x]`, not 0 where a feature is. Exact up to rounding: along x distances are counted, along y and z
/// they are the lower envelope of parabolas. Source: Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled
/// Functions", Theory of Computing 8 (2012).
pub(crate) fn squared_distances(features: &[u8], shape: [usize; 3], spacing_mm: [f64; 3]) -> Vec<f64> {
    let [nz, ny, nx] = shape;
    let mut squared = vec![f64::INFINITY; features.len()];
    if features.is_empty() {
        return squared;
    }
    let [along_z, along_y, along_x] = [0, 1, 2].map(|axis| squares(shape[axis], spacing_mm[axis]));
    for (row, features) in squared.chunks_exact_mut(nx).zip(features.chunks_exact(nx)) {
        count_along(row, features, &along_x);
    }
    let mut envelope = Envelope::default();
    for plane in squared.chunks_exact_mut(ny * nx) {
        (0..nx).for_each(|x| envelope.spread(plane, x, nx, &along_y));
    }
    if nz > 1 {
        (0..ny * nx).for_each(|at| envelope.spread(&mut squared, at, ny * nx, &along_z));
    }
    squared
}

/// The squared lengths of 0, 1, … steps. The step is multiplied first, so that lengths that are a multiple of the
/// spacing come out of the square root as they went in.
fn squares(count: usize, step_mm: f64) -> Vec<f64> {
    (0..count).map(|n| (n as f64 * step_mm).powi(2)).collect()
}

fn count_along(row: &mut [f64], features: &[u8], squares: &[f64]) {
    let mut last = None;
    for (x, &feature) in features.iter().enumerate() {
        if feature != 0 {
            // Points since the last feature are nearest to the closer one of the two.
            let from = last.map_or(0, |last| last + (x - last) / 2 + 1);
            (from..x).for_each(|at| row[at] = squares[x - at]);
            row[x] = 0.0;
            last = Some(x);
        } else if let Some(last) = last {
            row[x] = squares[x - last];
        }
    }
}

/// Parabolas of which each is the lowest somewhere, from left to right.
#[derive(Default)]
struct Envelope {
    /// Where its lowest point is, how high that is, and from which position on no other is lower.
    parabolas: Vec<(usize, f64, f64)>,
}

impl Envelope {
    /// Replaces every value of a line by the least of value plus squared distance along the line.
    fn spread(&mut self, values: &mut [f64], start: usize, stride: usize, squares: &[f64]) {
        let parabolas = &mut self.parabolas;
        parabolas.clear();
        let Some(&unit) = squares.get(1) else { return };
        let scale = 0.5 / unit;
        for (at, &height) in values[start..].iter().step_by(stride).enumerate() {
            if height == f64::INFINITY {
                continue;
            }
            let from = loop {
                let Some(&(other, other_height, from)) = parabolas.last() else { break f64::NEG_INFINITY };
                let steps = (at - other) as f64;
                let crossing = 0.5 * (at + other) as f64 + (height - other_height) * scale / steps;
                if crossing > from {
                    break crossing;
                }
                parabolas.pop();
            };
            parabolas.push((at, height, from));
        }
        let Some(&(mut lowest, mut height, _)) = parabolas.first() else { return };
        let mut next = parabolas[1..].iter();
        let mut coming = next.next();
        for (at, value) in values[start..].iter_mut().step_by(stride).enumerate() {
            while let Some(&(other, other_height, from)) = coming.filter(|parabola| parabola.2 <= at as f64) {
                debug_assert!(from <= at as f64);
                (lowest, height) = (other, other_height);
                coming = next.next();
            }
            *value = height + squares[at.abs_diff(lowest)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(features: &[u8], shape: [usize; 3], spacing_mm: [f64; 3]) -> Vec<f64> {
        let place = |at: usize| [at / (shape[1] * shape[2]), at / shape[2] % shape[1], at % shape[2]];
        let squared = |a: [usize; 3], b: [usize; 3]| -> f64 {
            (0..3).map(|axis| (a[axis].abs_diff(b[axis]) as f64 * spacing_mm[axis]).powi(2)).sum()
        };
        let nearest = |at: usize| {
            let found = (0..features.len()).filter(|&other| features[other] != 0);
            found.map(|other| squared(place(at), place(other))).fold(f64::INFINITY, f64::min)
        };
        (0..features.len()).map(nearest).collect()
    }

    fn boxes() -> impl Strategy<Value = ([usize; 3], Vec<u8>, [f64; 3])> {
        let spacing = prop::array::uniform3(prop::sample::select(vec![0.5, 1.0, 0.734_375, 3.0, 0.1]));
        (prop::array::uniform3(1_usize..9), spacing, 1_u8..40).prop_flat_map(|(shape, spacing, rarity)| {
            let feature = (0..rarity).prop_map(|value| u8::from(value == 0));
            (Just(shape), prop::collection::vec(feature, shape.iter().product::<usize>()), Just(spacing))
        })
    }

    proptest! {
        #[test]
        fn distances_are_those_to_the_nearest_feature((shape, features, spacing_mm) in boxes()) {
            let (ours, expected) =
                (squared_distances(&features, shape, spacing_mm), slow(&features, shape, spacing_mm));
            for (ours, expected) in ours.iter().zip(&expected) {
                // Sums in another order.
                prop_assert!(ours == expected || (ours - expected).abs() <= 1e-12 * expected, "{} {}", ours, expected);
            }
        }
    }
}
