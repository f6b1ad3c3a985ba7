//! Whether an exported model computes what the network it was made from computes.

use crate::error::StageError;
use pipe_nn::{CpuBackend, Dims, Geometry, Model, Task};
use pipe_onnx::Session;
use std::num::NonZeroUsize;

/// How far the logits of a network and of its export are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Agreement {
    /// Largest absolute difference; NaN when a logit is NaN or infinite on one side.
    pub(super) difference: f64,
    /// Largest absolute logit of the network.
    pub(super) scale: f64,
}

impl Agreement {
    fn of(network: &[f32], export: &[f32]) -> Self {
        // `f64::max` would drop a NaN.
        let larger = |a: f64, b: f64| if a.is_nan() || b <= a { a } else { b };
        let difference = network.iter().zip(export).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, larger);
        let scale = network.iter().map(|logit| f64::from(logit.abs())).fold(0.0, larger);
        Self { difference, scale }
    }

    /// The difference as a share of the largest logit; 0 when both are 0.
    pub(super) fn relative(&self) -> f64 {
        if self.difference == 0.0 { 0.0 } else { self.difference / self.scale }
    }

    /// Whether the difference is within `tolerance` times the largest logit. Never for NaN.
    pub(super) fn within(&self, tolerance: f64) -> bool {
        self.relative() <= tolerance
    }
}

/// Runs both on the same noise at two sizes: one sample of the patch, and two samples of about half of it (of the
/// same where a network takes no other). Returns the worse of both.
///
/// The noise has mean 0 and variance 1, as normalised images have, and is the same on every machine.
pub(super) fn compare(
    network: &Model<CpuBackend>,
    export: &[u8],
    patch: [usize; 3],
) -> Result<Agreement, StageError> {
    let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
    let mut session =
        Session::from_bytes(export, threads).map_err(StageError::inner("loading the exported model"))?;
    let mut worst = Agreement { difference: 0.0, scale: 0.0 };
    let second = match network.network().fixed_size {
        Some(size) => size,
        None => other_size(patch, network.network().multiple, network.network().dims),
    };
    for (samples, size) in [(1, patch), (2, second)] {
        let geometry = Geometry { samples, size };
        let channels = network.network().in_channels;
        let input = noise(geometry.rows() * channels, samples as u64);
        let expected = network.forward(&input, geometry).map_err(StageError::inner("running the network"))?;
        let spatial = &size[3 - network.network().dims.count()..];
        let shape = [&[samples, channels], spatial].concat();
        let (found, found_shape) =
            session.run(&input, &shape).map_err(StageError::inner("running the exported model"))?;
        let told: &[usize] = if network.network().task == Task::Segmentation { spatial } else { &[] };
        let expected_shape = [&[samples, network.network().classes], told].concat();
        if found_shape != expected_shape {
            return Err(StageError::Internal(format!(
                "the exported model gives an output of shape {found_shape:?}, the network {expected_shape:?}"
            )));
        }
        let agreement = Agreement::of(&expected, &found);
        let (found, before) = (agreement.relative(), worst.relative());
        // A NaN must win.
        if found.is_nan() || found > before || worst.scale == 0.0 {
            worst = agreement;
        }
    }
    Ok(worst)
}

/// About half of the patch, at least two voxels at the lowest level, and never the patch itself. Axis order z, y, x.
fn other_size(patch: [usize; 3], multiple: [usize; 3], dims: Dims) -> [usize; 3] {
    let half = |axis: usize| {
        let steps = (patch[axis] / multiple[axis]).div_ceil(2).max(2);
        let size = steps * multiple[axis];
        if size == patch[axis] { size + multiple[axis] } else { size }
    };
    match dims {
        Dims::Two => [1, half(1), half(2)],
        Dims::Three => [half(0), half(1), half(2)],
    }
}

/// Uniform numbers from −√3 to √3: mean 0, variance 1. SplitMix64 (Steele, Lea and Flood 2014).
pub(in crate::kinds) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((z ^ (z >> 31)) >> 40) as f32 / (1_u32 << 24) as f32;
        (2.0 * unit - 1.0) * 3.0_f32.sqrt()
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_relative_to_the_largest_logit_and_a_nan_is_never_within() {
        let agreement = Agreement::of(&[1.0, -8.0], &[1.5, -8.0]);
        assert_eq!(agreement, Agreement { difference: 0.5, scale: 8.0 });
        assert!(agreement.within(0.0625) && !agreement.within(0.0624));
        assert!(Agreement::of(&[0.0], &[0.0]).within(0.0));
        assert!(!Agreement::of(&[0.0], &[1e-9]).within(1e9), "infinitely far in relation");
        for broken in [f32::NAN, f32::INFINITY] {
            assert!(!Agreement::of(&[broken, 1.0], &[1.0, 1.0]).within(1e9), "{broken}");
            assert!(!Agreement::of(&[1.0, 1.0], &[1.0, broken]).within(1e9), "{broken}");
            assert!(!Agreement::of(&[broken, 1.0], &[broken, 1.0]).within(1e9), "{broken}");
        }
    }

    #[test]
    fn the_second_size_differs_from_the_patch_on_every_axis_and_fits_the_network() {
        for (patch, dims, expected) in [
            ([8, 8, 8], Dims::Three, [16, 16, 16]),
            ([16, 24, 40], Dims::Three, [24, 16, 24]),
            ([1, 56, 40], Dims::Two, [1, 32, 24]),
        ] {
            let found = other_size(patch, dims.axes(8), dims);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn noise_has_mean_0_and_variance_1() {
        let noise = noise(100_000, 1);
        let mean = noise.iter().sum::<f32>() / 1e5;
        let variance = noise.iter().map(|value| value * value).sum::<f32>() / 1e5;
        // Standard errors are 0.0032 and 0.0028; four of each.
        assert!(mean.abs() < 0.013 && (variance - 1.0).abs() < 0.012, "mean {mean}, variance {variance}");
    }
}
