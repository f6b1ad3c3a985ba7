//! Pooling over non-overlapping blocks of channels-last rows, and its inverse, repetition; forward and backward.

use rayon::prelude::*;

use crate::geometry::Geometry;

/// Channels compared side by side.
const LANES: usize = 8;

/// Where the block of one output voxel lies in the input: the row of each of its voxels, in z, y, x order.
fn block_rows(
    input: Geometry,
    factor: [usize; 3],
    plane: usize,
    y: usize,
    x: usize,
) -> impl Iterator<Item = usize> {
    let depth = input.size[0] / factor[0];
    let (sample, z) = (plane / depth, plane % depth);
    let [_, height, width] = input.size;
    let first_plane = sample * input.size[0] + z * factor[0];
    (0..factor.iter().product()).map(move |tap: usize| {
        let (dz, dy, dx) = (tap / (factor[1] * factor[2]), tap / factor[2] % factor[1], tap % factor[2]);
        ((first_plane + dz) * height + y * factor[1] + dy) * width + x * factor[2] + dx
    })
}

/// Writes the maxima to `y` and which voxel of the block (z, y, x order; the first of equals) held each to `place`.
/// Blocks have at most 256 voxels.
pub(crate) fn max_pool_forward(
    input: Geometry,
    factor: [usize; 3],
    channels: usize,
    x: &[f32],
    y: &mut [f32],
    place: &mut [u8],
) {
    let [_, height, width] = crate::geometry::pooled(input, factor).size;
    let plane_len = height * width * channels;
    let planes = y.par_chunks_mut(plane_len).zip(place.par_chunks_mut(plane_len));
    planes.enumerate().for_each(|(plane, (y, place))| {
        let voxels = y.chunks_exact_mut(channels).zip(place.chunks_exact_mut(channels));
        for (voxel, (y, place)) in voxels.enumerate() {
            for (group, (y, place)) in y.chunks_mut(LANES).zip(place.chunks_mut(LANES)).enumerate() {
                let mut best = [f32::NEG_INFINITY; LANES];
                let mut held = [0_u8; LANES];
                let rows = block_rows(input, factor, plane, voxel / width, voxel % width);
                for (tap, row) in rows.enumerate() {
                    let values = &x[row * channels + group * LANES..][..y.len()];
                    for (i, value) in values.iter().enumerate() {
                        let larger = *value > best[i];
                        best[i] = if larger { *value } else { best[i] };
                        held[i] = if larger { tap as u8 } else { held[i] };
                    }
                }
                y.copy_from_slice(&best[..y.len()]);
                place.copy_from_slice(&held[..place.len()]);
            }
        }
    });
}

/// Brings the slope of the maxima back to the voxels that held them: written where `fresh`, zeros elsewhere; added
/// to what `dx` holds otherwise.
pub(crate) fn max_pool_backward(
    input: Geometry,
    factor: [usize; 3],
    channels: usize,
    dy: &[f32],
    place: &[u8],
    dx: &mut [f32],
    fresh: bool,
) {
    let output = crate::geometry::pooled(input, factor);
    let [depth, height, width] = output.size;
    let input_plane = input.size[1] * input.size[2] * channels;
    if fresh && output.size.iter().zip(factor).zip(input.size).any(|((n, f), whole)| n * f != whole) {
        dx.fill(0.0);
    }
    let sample_len = input.size[0] * input_plane;
    dx.par_chunks_mut(sample_len).enumerate().for_each(|(sample, dx)| {
        let used = &mut dx[..depth * factor[0] * input_plane];
        used.par_chunks_mut(factor[0] * input_plane).enumerate().for_each(|(z, dx)| {
            let plane = sample * depth + z;
            let base = (sample * input.size[0] + z * factor[0]) * input.size[1] * input.size[2];
            for y in 0..height {
                for x in 0..width {
                    let at = ((plane * height + y) * width + x) * channels;
                    let (slope, place) = (&dy[at..at + channels], &place[at..at + channels]);
                    for (tap, row) in block_rows(input, factor, plane, y, x).enumerate() {
                        let dx = &mut dx[(row - base) * channels..][..channels];
                        for ((dx, slope), place) in dx.iter_mut().zip(slope).zip(place) {
                            let share = if usize::from(*place) == tap { *slope } else { 0.0 };
                            *dx = if fresh { share } else { *dx + share };
                        }
                    }
                }
            }
        });
    });
}

/// Writes the mean of each block to `y`.
pub(crate) fn avg_pool_forward(
    input: Geometry,
    factor: [usize; 3],
    channels: usize,
    x: &[f32],
    y: &mut [f32],
) {
    let [_, height, width] = crate::geometry::pooled(input, factor).size;
    let share = 1.0 / factor.iter().product::<usize>() as f32;
    y.par_chunks_mut(height * width * channels).enumerate().for_each(|(plane, y)| {
        for (voxel, y) in y.chunks_exact_mut(channels).enumerate() {
            y.fill(0.0);
            for row in block_rows(input, factor, plane, voxel / width, voxel % width) {
                y.iter_mut().zip(&x[row * channels..]).for_each(|(sum, value)| *sum += value);
            }
            for sum in y.iter_mut() {
                *sum *= share;
            }
        }
    });
}

/// Writes `share` times the slope of each block to all of its voxels; what belongs to no block gets 0.
pub(crate) fn spread(
    input: Geometry,
    factor: [usize; 3],
    channels: usize,
    share: f32,
    dy: &[f32],
    dx: &mut [f32],
) {
    let [depth, height, width] = crate::geometry::pooled(input, factor).size;
    let row_len = input.size[2] * channels;
    dx.par_chunks_mut(row_len).enumerate().for_each(|(row, dx)| {
        let (plane, y) = (row / input.size[1], row % input.size[1] / factor[1]);
        let (sample, z) = (plane / input.size[0], plane % input.size[0] / factor[0]);
        if z >= depth || y >= height {
            return dx.fill(0.0);
        }
        let from = &dy[((sample * depth + z) * height + y) * width * channels..][..width * channels];
        let (used, rest) = dx.split_at_mut(width * factor[2] * channels);
        for (from, block) in from.chunks_exact(channels).zip(used.chunks_exact_mut(factor[2] * channels)) {
            for to in block.chunks_exact_mut(channels) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = share * from);
            }
        }
        rest.fill(0.0);
    });
}

/// Adds up the values of each block: the backward pass of a repetition by `factor`. `fine` is the repeated geometry.
pub(crate) fn gather_blocks(fine: Geometry, factor: [usize; 3], channels: usize, dy: &[f32], dx: &mut [f32]) {
    avg_pool_forward(fine, factor, channels, dy, dx);
    let count = factor.iter().product::<usize>() as f32;
    dx.par_chunks_mut(1 << 15).for_each(|dx| dx.iter_mut().for_each(|value| *value *= count));
}
