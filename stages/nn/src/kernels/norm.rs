//! Normalisation of each sample by channel or group of channels, with affine and leaky ReLU, over channels-last rows;
//! forward and backward. Batch normalisation is that of one sample that holds the batch.
#![expect(unsafe_code, reason = "calls loops compiled per instruction set")]
#![expect(clippy::inline_always, reason = "bodies must be compiled inside their target-feature wrapper")]

use rayon::prelude::*;

use super::simd::Simd;
use super::{Isa, dispatch};

/// Rows per part of a sum and per task; sizes alone decide, never the thread count.
const PART_ROWS: usize = 2048;
/// Rows summed side by side, so that sums of few channels still fill vectors.
const TILE: usize = 4;
/// Values per inner loop.
const STRIP: usize = 32;

/// What the backward pass needs: per sample and channel.
pub(crate) struct NormSaved {
    pub(crate) mean: Vec<f32>,
    pub(crate) inverse_deviation: Vec<f32>,
}

/// Per channel: `z = x·scale + shift`, and `normalised = (x - mean)·inverse`; each repeated for a tile of rows.
struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
    mean: Vec<f32>,
    inverse: Vec<f32>,
}

fn tiled(values: impl Iterator<Item = f32>) -> Vec<f32> {
    values.collect::<Vec<_>>().repeat(TILE)
}

impl Affine {
    fn new(saved: &NormSaved, sample: usize, scale: &[f32], shift: &[f32]) -> Self {
        let channels = scale.len();
        let mean = &saved.mean[sample * channels..][..channels];
        let inverse = &saved.inverse_deviation[sample * channels..][..channels];
        let gain = scale.iter().zip(inverse).map(|(s, i)| s * i);
        let offset = shift.iter().zip(mean).zip(gain.clone()).map(|((b, m), g)| b - m * g);
        Self {
            shift: tiled(offset),
            scale: tiled(gain),
            mean: tiled(mean.iter().copied()),
            inverse: tiled(inverse.iter().copied()),
        }
    }
}

/// Calls `$body(strip start, strip length)` so that full strips have a constant length.
macro_rules! strips {
    ($tile:expr, |$start:ident, $len:ident| $body:block) => {
        let mut $start = 0;
        while $start < $tile {
            if $start + STRIP <= $tile {
                const $len: usize = STRIP;
                $body
            } else {
                let $len = $tile - $start;
                $body
            }
            $start += STRIP;
        }
    };
}

dispatch! {
    /// Adds `x - centre` and its square to `sums[0]`, `sums[1]`, both a tile of `TILE` rows.
    fn moments = moments_body(x: &[f32], centre: &[f32], sums: &mut [Vec<f32>; 2])
}

#[inline(always)]
#[expect(non_upper_case_globals, reason = "a strip length is a constant or a variable by the same name")]
unsafe fn moments_body<Wide: Simd, Narrow: Simd>(x: &[f32], centre: &[f32], sums: &mut [Vec<f32>; 2]) {
    let tile = centre.len();
    let (whole, rest) = x.split_at(x.len() / tile * tile);
    strips!(tile, |start, len| {
        let mut first = [0.0_f32; STRIP];
        let mut second = [0.0_f32; STRIP];
        let centre = &centre[start..start + len];
        for rows in whole.chunks_exact(tile) {
            let rows = &rows[start..start + len];
            for i in 0..len {
                let difference = rows[i] - centre[i];
                first[i] += difference;
                second[i] += difference * difference;
            }
        }
        sums[0][start..start + len].copy_from_slice(&first[..len]);
        sums[1][start..start + len].copy_from_slice(&second[..len]);
    });
    for (i, value) in rest.iter().enumerate() {
        let difference = value - centre[i];
        sums[0][i] += difference;
        sums[1][i] += difference * difference;
    }
}

dispatch! {
    /// `y = leaky(x·scale + shift)`.
    fn apply = apply_body(x: &[f32], affine: &Affine, slope: f32, y: &mut [f32])
}

#[inline(always)]
#[expect(non_upper_case_globals, reason = "a strip length is a constant or a variable by the same name")]
unsafe fn apply_body<Wide: Simd, Narrow: Simd>(x: &[f32], affine: &Affine, slope: f32, y: &mut [f32]) {
    let tile = affine.scale.len();
    for (x, y) in x.chunks(tile).zip(y.chunks_mut(tile)) {
        let present = x.len();
        strips!(present, |start, len| {
            let (scale, shift) = (&affine.scale[start..start + len], &affine.shift[start..start + len]);
            let (x, y) = (&x[start..start + len], &mut y[start..start + len]);
            for i in 0..len {
                let z = x[i] * scale[i] + shift[i];
                y[i] = if z > 0.0 { z } else { z * slope };
            }
        });
    }
}

dispatch! {
    /// Adds the slope of `z` and its product with the normalised `x` to `sums[0]`, `sums[1]`.
    fn slope_sums = slope_sums_body(x: &[f32], dy: &[f32], affine: &Affine, slope: f32, sums: &mut [Vec<f32>; 2])
}

#[inline(always)]
#[expect(non_upper_case_globals, reason = "a strip length is a constant or a variable by the same name")]
unsafe fn slope_sums_body<Wide: Simd, Narrow: Simd>(
    x: &[f32],
    dy: &[f32],
    affine: &Affine,
    slope: f32,
    sums: &mut [Vec<f32>; 2],
) {
    let tile = affine.scale.len();
    let whole = x.len() / tile * tile;
    strips!(tile, |start, len| {
        let mut first = [0.0_f32; STRIP];
        let mut second = [0.0_f32; STRIP];
        let (scale, shift) = (&affine.scale[start..start + len], &affine.shift[start..start + len]);
        let (mean, inverse) = (&affine.mean[start..start + len], &affine.inverse[start..start + len]);
        for (x, dy) in x[..whole].chunks_exact(tile).zip(dy[..whole].chunks_exact(tile)) {
            let (x, dy) = (&x[start..start + len], &dy[start..start + len]);
            for i in 0..len {
                let z = x[i] * scale[i] + shift[i];
                let dz = if z > 0.0 { dy[i] } else { dy[i] * slope };
                first[i] += dz;
                second[i] += dz * ((x[i] - mean[i]) * inverse[i]);
            }
        }
        sums[0][start..start + len].copy_from_slice(&first[..len]);
        sums[1][start..start + len].copy_from_slice(&second[..len]);
    });
    for (i, (x, dy)) in x[whole..].iter().zip(&dy[whole..]).enumerate() {
        let z = x * affine.scale[i] + affine.shift[i];
        let dz = if z > 0.0 { *dy } else { dy * slope };
        sums[0][i] += dz;
        sums[1][i] += dz * ((x - affine.mean[i]) * affine.inverse[i]);
    }
}

dispatch! {
    /// Turns the slope of `y` into the slope of `x`, in place; `means` are the tiled means of [`slope_sums`] over each
    /// group, each channel by its scale, over the deviation.
    fn data_slope = data_slope_body(x: &[f32], affine: &Affine, slope: f32, means: &[Vec<f32>; 2], dy: &mut [f32])
}

#[inline(always)]
#[expect(non_upper_case_globals, reason = "a strip length is a constant or a variable by the same name")]
unsafe fn data_slope_body<Wide: Simd, Narrow: Simd>(
    x: &[f32],
    affine: &Affine,
    slope: f32,
    means: &[Vec<f32>; 2],
    dy: &mut [f32],
) {
    let tile = affine.scale.len();
    for (x, dy) in x.chunks(tile).zip(dy.chunks_mut(tile)) {
        let present = x.len();
        strips!(present, |start, len| {
            let (scale, shift) = (&affine.scale[start..start + len], &affine.shift[start..start + len]);
            let (mean, inverse) = (&affine.mean[start..start + len], &affine.inverse[start..start + len]);
            let (first, second) = (&means[0][start..start + len], &means[1][start..start + len]);
            let (x, dy) = (&x[start..start + len], &mut dy[start..start + len]);
            for i in 0..len {
                let z = x[i] * scale[i] + shift[i];
                let dz = if z > 0.0 { dy[i] } else { dy[i] * slope };
                dy[i] = scale[i] * dz - first[i] - (x[i] - mean[i]) * inverse[i] * second[i];
            }
        });
    }
}

/// Runs `part(sample, rows of the part)` for all parts in parallel and adds the tiled pairs in order, in f64.
fn sum_parts(
    samples: usize,
    sample_len: usize,
    channels: usize,
    part: impl Fn(usize, std::ops::Range<usize>) -> [Vec<f32>; 2] + Sync,
) -> Vec<[Vec<f64>; 2]> {
    let part_len = PART_ROWS * channels;
    let parts = sample_len.div_ceil(part_len);
    let tiles: Vec<[Vec<f32>; 2]> = (0..samples * parts)
        .into_par_iter()
        .map(|index| {
            let (sample, first) = (index / parts, index % parts * part_len);
            let start = sample * sample_len;
            part(sample, start + first..start + (first + part_len).min(sample_len))
        })
        .collect();
    tiles
        .chunks_exact(parts)
        .map(|tiles| {
            std::array::from_fn(|k| {
                let mut sums = vec![0.0_f64; channels];
                for tile in tiles {
                    tile[k].iter().enumerate().for_each(|(i, value)| sums[i % channels] += f64::from(*value));
                }
                sums
            })
        })
        .collect()
}

/// How values are normalised together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormShape {
    pub(crate) samples: usize,
    /// Channels that share mean and variance.
    pub(crate) channels_per_group: usize,
    pub(crate) epsilon: f32,
    /// Below zero, behind the affine.
    pub(crate) slope: f32,
}

/// `x`: `[samples, voxels, channels]`; writes `leaky(scale·(x - mean)/sqrt(variance + epsilon) + shift)` to `y`, with
/// the mean and the biased variance of each sample and group of channels.
pub(crate) fn norm_act_forward(
    isa: Isa,
    shape: NormShape,
    x: &[f32],
    [scale, shift]: [&[f32]; 2],
    y: &mut [f32],
) -> NormSaved {
    let NormShape { samples, channels_per_group, epsilon, slope } = shape;
    assert!(isa.available(), "internal error: {isa:?} kernels on a processor without them");
    let channels = scale.len();
    let sample_len = x.len() / samples;
    assert_eq!((x.len(), shift.len()), (y.len(), channels), "internal error: norm lengths");
    assert_eq!(sample_len % channels, 0, "internal error: norm rows");
    // Differences to the first row: a one-pass variance that does not cancel when the mean is large.
    let centre = |sample: usize| &x[sample * sample_len..][..channels];
    let sums = sum_parts(samples, sample_len, channels, |sample, part| {
        let centre = tiled(centre(sample).iter().copied());
        let mut sums = [vec![0.0; centre.len()], vec![0.0; centre.len()]];
        // SAFETY: the instruction set is available; the body is safe code.
        unsafe { moments(isa, &x[part], &centre, &mut sums) };
        sums
    });
    let count = (sample_len / channels) as f64;
    let mut saved = NormSaved { mean: Vec::new(), inverse_deviation: Vec::new() };
    for (sample, [first, second]) in sums.iter().enumerate() {
        let moments: Vec<(f64, f64)> = (centre(sample).iter().zip(first).zip(second))
            .map(|((centre, first), second)| {
                let difference = first / count;
                let variance = (second / count - difference * difference).max(0.0);
                (f64::from(*centre) + difference, variance)
            })
            .collect();
        for group in moments.chunks_exact(channels_per_group) {
            let share = 1.0 / group.len() as f64;
            let mean = group.iter().map(|(mean, _)| mean * share).sum::<f64>();
            let spread = |(own, variance): &(f64, f64)| (variance + (own - mean).powi(2)) * share;
            let variance = group.iter().map(spread).sum::<f64>();
            for _ in group {
                saved.mean.push(mean as f32);
                saved.inverse_deviation.push((1.0 / (variance + f64::from(epsilon)).sqrt()) as f32);
            }
        }
    }
    for (sample, (x, y)) in x.chunks_exact(sample_len).zip(y.chunks_exact_mut(sample_len)).enumerate() {
        let affine = Affine::new(&saved, sample, scale, shift);
        let part = PART_ROWS * channels;
        x.par_chunks(part).zip(y.par_chunks_mut(part)).for_each(|(x, y)| {
            // SAFETY: the instruction set is available; the body is safe code.
            unsafe { apply(isa, x, &affine, slope, y) };
        });
    }
    saved
}

/// Turns the slope of the output into the slope of `x`, in place, and adds to the slopes of scale and shift.
pub(crate) fn norm_act_backward(
    isa: Isa,
    shape: NormShape,
    x: &[f32],
    [scale, shift]: [&[f32]; 2],
    saved: &NormSaved,
    dy: &mut [f32],
    [d_scale, d_shift]: [&mut [f32]; 2],
) {
    let NormShape { samples, channels_per_group, slope, .. } = shape;
    assert!(isa.available(), "internal error: {isa:?} kernels on a processor without them");
    let channels = scale.len();
    let sample_len = x.len() / samples;
    assert_eq!(x.len(), dy.len(), "internal error: norm slope length");
    let affine: Vec<Affine> = (0..samples).map(|sample| Affine::new(saved, sample, scale, shift)).collect();
    let slopes: &[f32] = dy;
    let sums = sum_parts(samples, sample_len, channels, |sample, part| {
        let affine = &affine[sample];
        let mut sums = [vec![0.0; affine.scale.len()], vec![0.0; affine.scale.len()]];
        // SAFETY: the instruction set is available; the body is safe code.
        unsafe { slope_sums(isa, &x[part.clone()], &slopes[part], affine, slope, &mut sums) };
        sums
    });
    let count = (sample_len / channels) as f64;
    for (sample, sums) in sums.iter().enumerate() {
        d_shift.iter_mut().zip(&sums[0]).for_each(|(total, value)| *total += *value as f32);
        d_scale.iter_mut().zip(&sums[1]).for_each(|(total, value)| *total += *value as f32);
        let inverse = &saved.inverse_deviation[sample * channels..][..channels];
        let means = [0, 1].map(|k| {
            let weighed: Vec<f64> = sums[k].iter().zip(scale).map(|(sum, s)| sum * f64::from(*s)).collect();
            let totals = weighed.chunks_exact(channels_per_group).flat_map(|group| {
                let mean = group.iter().sum::<f64>() / (count * group.len() as f64);
                group.iter().map(move |_| mean)
            });
            tiled(totals.zip(inverse).map(|(mean, inverse)| (mean * f64::from(*inverse)) as f32))
        });
        let part = PART_ROWS * channels;
        let range = sample * sample_len..(sample + 1) * sample_len;
        dy[range.clone()].par_chunks_mut(part).zip(x[range].par_chunks(part)).for_each(|(dy, x)| {
            // SAFETY: the instruction set is available; the body is safe code.
            unsafe { data_slope(isa, x, &affine[sample], slope, &means, dy) };
        });
    }
}
