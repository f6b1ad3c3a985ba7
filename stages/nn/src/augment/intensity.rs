//! Changes to the values of a training sample, in place. Voxels outside the image (padding) are neither read nor written.

use super::{Draw, Place, Random};
use crate::loss::IGNORE;
use crate::rng::Rng;

/// One sample: `image`: `[z, y, x, channels]`.
pub(crate) struct Sample<'a> {
    pub(crate) image: &'a mut [f32],
    /// `[z, y, x]`; [`IGNORE`] is outside the image, or does not count.
    pub(crate) outside: &'a [u8],
    pub(crate) size: [usize; 3],
    pub(crate) channels: usize,
}

/// Applies all changes of values that the draws call for, in the order of nnU-Net.
pub(crate) fn change(random: &Random, place: Place, sample: &mut Sample<'_>) {
    let mut rng = place.rng(Draw::Noise);
    if let Some(deviation) = random.noise.draw(&mut rng) {
        sample.each(|_, value| value + deviation * light_normal(rng.next_u64()));
    }
    if let Some(sigma) = random.blur.draw(&mut place.rng(Draw::Blur)) {
        sample.blur(sigma);
    }
    if let Some(factor) = random.brightness.draw(&mut place.rng(Draw::Brightness)) {
        sample.each(|_, value| value * factor);
    }
    if let Some(factor) = random.contrast.draw(&mut place.rng(Draw::Contrast)) {
        let all = sample.statistics();
        sample.each(|channel, value| {
            let Statistics { mean, low, high, .. } = all[channel];
            (mean + (value - mean) * factor).clamp(low, high)
        });
    }
    if let Some(share) = random.low_resolution.draw(&mut place.rng(Draw::LowResolution)) {
        sample.coarsen(share);
    }
    if let Some(power) = random.gamma.draw(&mut place.rng(Draw::Gamma)) {
        sample.gamma(power);
    }
    let mut rng = place.rng(Draw::BiasField);
    if let Some(strength) = random.bias_field.draw(&mut rng) {
        sample.bias(strength, &mut rng);
    }
    let mut rng = place.rng(Draw::Cutout);
    if let Some(share) = random.cutout.draw(&mut rng) {
        let size = sample.size;
        let hole = draw_box(&mut rng, size, share);
        for_each_in(&hole, size, |voxel| {
            sample.image[voxel * sample.channels..][..sample.channels].fill(0.0);
        });
    }
}

/// A box of `share` of each axis, at random.
pub(crate) fn draw_box(rng: &mut Rng, size: [usize; 3], share: f32) -> [std::ops::Range<usize>; 3] {
    size.map(|size| {
        let length = ((size as f32 * share).round() as usize).clamp(1, size);
        let start = rng.below(size - length + 1);
        start..start + length
    })
}

/// Calls `visit` with the index of each voxel of a box.
pub(crate) fn for_each_in(
    region: &[std::ops::Range<usize>; 3],
    size: [usize; 3],
    mut visit: impl FnMut(usize),
) {
    for z in region[0].clone() {
        for y in region[1].clone() {
            for x in region[2].clone() {
                visit((z * size[1] + y) * size[2] + x);
            }
        }
    }
}

/// Of one channel, over the voxels inside.
#[derive(Clone, Copy, Debug)]
struct Statistics {
    mean: f32,
    deviation: f32,
    low: f32,
    high: f32,
}

impl Sample<'_> {
    fn inside(&self, voxel: usize) -> bool {
        self.outside[voxel] != IGNORE
    }

    /// Changes each value inside, given its channel.
    fn each(&mut self, mut change: impl FnMut(usize, f32) -> f32) {
        for (values, outside) in self.image.chunks_exact_mut(self.channels).zip(self.outside) {
            if *outside != IGNORE {
                values.iter_mut().enumerate().for_each(|(channel, value)| *value = change(channel, *value));
            }
        }
    }

    fn statistics(&self) -> Vec<Statistics> {
        (0..self.channels)
            .map(|channel| {
                let voxels = (0..self.outside.len()).filter(|voxel| self.inside(*voxel));
                let values = voxels.map(|voxel| self.image[voxel * self.channels + channel]);
                let (mut count, mut sum, mut square) = (0.0_f64, 0.0_f64, 0.0_f64);
                let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
                for value in values {
                    count += 1.0;
                    sum += f64::from(value);
                    square += f64::from(value).powi(2);
                    (low, high) = (low.min(value), high.max(value));
                }
                if count == 0.0 {
                    return Statistics { mean: 0.0, deviation: 0.0, low: 0.0, high: 0.0 };
                }
                let mean = sum / count;
                let deviation = (square / count - mean * mean).max(0.0).sqrt();
                Statistics { mean: mean as f32, deviation: deviation as f32, low, high }
            })
            .collect()
    }

    /// Powers of the values brought to 0 to 1, brought back to their mean and deviation.
    fn gamma(&mut self, power: f32) {
        let before = self.statistics();
        self.each(|channel, value| {
            let Statistics { low, high, .. } = before[channel];
            let span = high - low;
            if span > 0.0 { ((value - low) / span).clamp(0.0, 1.0).powf(power) * span + low } else { value }
        });
        let after = self.statistics();
        self.each(|channel, value| {
            let (before, after) = (before[channel], after[channel]);
            if after.deviation > 0.0 {
                (value - after.mean) / after.deviation * before.deviation + before.mean
            } else {
                value
            }
        });
    }

    /// Multiplies the height above the least value by the exponential of a polynomial of second order in the place.
    fn bias(&mut self, strength: f32, rng: &mut Rng) {
        let coefficients: [f32; 9] = std::array::from_fn(|_| rng.range(-strength, strength));
        let lows: Vec<f32> = self.statistics().iter().map(|statistics| statistics.low).collect();
        let size = self.size;
        for voxel in 0..self.outside.len() {
            if !self.inside(voxel) {
                continue;
            }
            let place = [voxel / (size[1] * size[2]), voxel / size[2] % size[1], voxel % size[2]];
            // From -1 to 1; 0 on an axis of one voxel.
            let [z, y, x] = [0, 1, 2].map(|axis| {
                let last = size[axis] as f32 - 1.0;
                if last > 0.0 { 2.0 * place[axis] as f32 / last - 1.0 } else { 0.0 }
            });
            let terms = [z, y, x, z * z, y * y, x * x, z * y, z * x, y * x];
            let field: f32 = terms.iter().zip(coefficients).map(|(term, c)| term * c).sum::<f32>().exp();
            let values = &mut self.image[voxel * self.channels..][..self.channels];
            values.iter_mut().zip(&lows).for_each(|(value, low)| *value = (*value - low) * field + low);
        }
    }

    /// Blurs along each axis; at the border of the image the nearest value counts.
    fn blur(&mut self, sigma: f32) {
        let radius = (3.0 * sigma).ceil() as usize;
        if radius == 0 {
            return;
        }
        let bell = |offset: f32| (-0.5 * (offset / sigma).powi(2)).exp();
        let mut weights: Vec<f32> = (0..=2 * radius).map(|i| bell(i as f32 - radius as f32)).collect();
        let total: f32 = weights.iter().sum();
        for weight in &mut weights {
            *weight /= total;
        }
        let size = self.size;
        for axis in (0..3).filter(|axis| size[*axis] > 1) {
            self.along(axis, |line, out| {
                let last = line.len() - 1;
                for (at, out) in out.iter_mut().enumerate() {
                    let near = |k: usize| (at + k).saturating_sub(radius).min(last);
                    *out = weights.iter().enumerate().map(|(k, weight)| weight * line[near(k)]).sum();
                }
            });
        }
    }

    /// Keeps `share` of the voxels of each axis, the nearest ones, and joins them by straight lines.
    fn coarsen(&mut self, share: f32) {
        let size = self.size;
        for axis in (0..3).filter(|axis| size[*axis] > 1) {
            self.along(axis, |line, out| {
                let count = ((line.len() as f32 * share).round() as usize).clamp(2, line.len().max(2));
                let step = (line.len() - 1) as f32 / (count - 1) as f32;
                let kept = |index: usize| line[((index as f32 * step).round() as usize).min(line.len() - 1)];
                for (at, out) in out.iter_mut().enumerate() {
                    let place = at as f32 / step;
                    let low = (place.floor() as usize).min(count - 1);
                    let share = place - low as f32;
                    let high = (low + 1).min(count - 1);
                    *out = kept(low) * (1.0 - share) + kept(high) * share;
                }
            });
        }
    }

    /// Runs `change(values, result)` over each run of voxels inside along one axis, channel by channel.
    fn along(&mut self, axis: usize, change: impl Fn(&[f32], &mut [f32])) {
        let size = self.size;
        let stride = [size[1] * size[2], size[2], 1][axis];
        let (mut line, mut out, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for start in 0..self.outside.len() {
            let place = [start / (size[1] * size[2]), start / size[2] % size[1], start % size[2]];
            if place[axis] != 0 {
                continue;
            }
            rows.clear();
            rows.extend(
                (0..size[axis]).map(|at| start + at * stride).filter(|row| self.outside[*row] != IGNORE),
            );
            if rows.len() < 2 {
                continue;
            }
            for channel in 0..self.channels {
                line.clear();
                line.extend(rows.iter().map(|row| self.image[row * self.channels + channel]));
                out.clear();
                out.resize(line.len(), 0.0);
                change(&line, &mut out);
                for (row, value) in rows.iter().zip(&out) {
                    self.image[row * self.channels + channel] = *value;
                }
            }
        }
    }
}

/// Nearly standard normal: the sum of four 16-bit uniforms, scaled to variance 1 (Irwin-Hall). Cheap, and its bounded
/// tails do no harm to image noise.
fn light_normal(bits: u64) -> f32 {
    let sum: u32 = (0..4).map(|k| (bits >> (16 * k)) as u32 & 0xffff).sum();
    (sum as f32 / 65_536.0 - 2.0) * 3.0_f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [usize; 3] = [3, 4, 5];

    /// Two channels of smooth values; the last row is outside.
    fn with(change: impl FnOnce(&mut Sample<'_>)) -> (Vec<f32>, Vec<f32>) {
        let before: Vec<f32> = (0..120).map(|i| ((i * 37) % 101) as f32 / 20.0 - 2.0).collect();
        let mut outside = vec![0; 60];
        outside[55..].fill(IGNORE);
        let mut image = before.clone();
        change(&mut Sample { image: &mut image, outside: &outside, size: SIZE, channels: 2 });
        assert_eq!(image[110..], before[110..], "padding is not touched");
        (before, image)
    }

    fn moments(values: &[f32], channel: usize) -> (f32, f32) {
        let own: Vec<f32> = values[..110].iter().skip(channel).step_by(2).copied().collect();
        let mean = own.iter().sum::<f32>() / 55.0;
        (mean, (own.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 55.0).sqrt())
    }

    #[test]
    fn gamma_changes_values_but_not_their_mean_and_deviation() {
        let (before, after) = with(|sample| sample.gamma(1.4));
        assert_ne!(before, after);
        for channel in 0..2 {
            let ((mean, deviation), (m, d)) = (moments(&before, channel), moments(&after, channel));
            assert!((mean - m).abs() < 1e-4 && (deviation - d).abs() < 1e-4);
        }
        let (before, same) = with(|sample| sample.gamma(1.0));
        assert!(before.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn a_blur_keeps_the_sum_of_an_impulse_and_a_constant() {
        let mut image = vec![0.0; 11];
        image[5] = 1.0;
        let outside = vec![0; 11];
        let size = [1, 1, 11];
        Sample { image: &mut image, outside: &outside, size, channels: 1 }.blur(1.0);
        assert!((image.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        // The discrete Gaussian: 0.39905, and e^-1/2 of it beside.
        assert!((image[5] - 0.399_05).abs() < 1e-4 && (image[6] / image[5] - 0.606_53).abs() < 1e-4);
        let (_, after) = with(|sample| {
            sample.each(|_, _| 3.0);
            sample.blur(1.5);
        });
        assert!(after[..110].iter().all(|value| (value - 3.0).abs() < 1e-5));
    }

    #[test]
    fn a_coarser_image_keeps_straight_lines_and_its_ends() {
        let mut image: Vec<f32> = (0..9).map(|i| i as f32).collect();
        let outside = vec![0; 9];
        Sample { image: &mut image, outside: &outside, size: [1, 1, 9], channels: 1 }.coarsen(0.55);
        let expected: Vec<f32> = (0..9).map(|i| i as f32).collect();
        assert_eq!(image, expected);
        let (before, after) = with(|sample| sample.coarsen(0.5));
        assert_ne!(before, after);
    }

    #[test]
    fn a_bias_field_of_strength_0_changes_nothing_and_others_keep_the_least_value() {
        let mut rng = Place { seed: 1, epoch: 2, index: 3 }.rng(Draw::BiasField);
        let (before, after) = with(|sample| sample.bias(0.0, &mut rng));
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-6));
        let (before, after) = with(|sample| sample.bias(0.5, &mut rng));
        let low = |values: &[f32]| values[..110].iter().step_by(2).copied().fold(f32::INFINITY, f32::min);
        assert_eq!(low(&before), low(&after));
        assert_ne!(before, after);
    }
}
