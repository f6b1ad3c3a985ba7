//! Pooling over non-overlapping blocks of channels-last rows, and its inverse, repetition; forward and backward.

#![expect(unsafe_code, reason = "calls loops compiled per instruction set")]
#![expect(clippy::inline_always, reason = "bodies must be compiled inside their target-feature wrapper")]

use rayon::prelude::*;

use super::simd::Simd;
use super::{Isa, dispatch};
use crate::geometry::Geometry;

/// The row of the first voxel of a block: of output plane `plane` (samples and depths), row `y`, column `x`.
fn first_row(input: Geometry, factor: [usize; 3], plane: usize, y: usize, x: usize) -> usize {
    let depth = input.size[0] / factor[0];
    let first_plane = plane / depth * input.size[0] + plane % depth * factor[0];
    (first_plane * input.size[1] + y * factor[1]) * input.size[2] + x * factor[2]
}

/// A row of output voxels and the values under one place of their blocks: those of neighbours stand `step` apart.
struct PoolRow {
    channels: usize,
    step: usize,
    /// The place in the block.
    tap: u8,
}

dispatch! {
    /// Keeps the larger of `y` and `values`, and in `place` which tap it came from.
    fn keep_larger = keep_larger_body(row: &PoolRow, values: &[f32], y: &mut [f32], place: &mut [u8])
}

#[inline(always)]
unsafe fn keep_larger_body<Wide: Simd, Narrow: Simd>(
    row: &PoolRow,
    values: &[f32],
    y: &mut [f32],
    place: &mut [u8],
) {
    let channels = row.channels;
    let voxels = y.chunks_exact_mut(channels).zip(place.chunks_exact_mut(channels));
    for ((y, place), values) in voxels.zip(values.chunks(row.step)) {
        for ((y, place), value) in y.iter_mut().zip(place).zip(&values[..channels]) {
            let larger = *value > *y;
            *y = if larger { *value } else { *y };
            *place = if larger { row.tap } else { *place };
        }
    }
}

dispatch! {
    /// Gives the slope to the voxels of `dx` that held the maximum; adds it where not `fresh`.
    fn give_back = give_back_body(row: &PoolRow, slope: &[f32], place: &[u8], dx: &mut [f32], fresh: bool)
}

#[inline(always)]
unsafe fn give_back_body<Wide: Simd, Narrow: Simd>(
    row: &PoolRow,
    slope: &[f32],
    place: &[u8],
    dx: &mut [f32],
    fresh: bool,
) {
    let channels = row.channels;
    let voxels = slope.chunks_exact(channels).zip(place.chunks_exact(channels));
    for ((slope, place), dx) in voxels.zip(dx.chunks_mut(row.step)) {
        for ((slope, place), dx) in slope.iter().zip(place).zip(&mut dx[..channels]) {
            let share = if *place == row.tap { *slope } else { 0.0 };
            *dx = if fresh { share } else { *dx + share };
        }
    }
}

/// The places of a block, in z, y, x order, and how far each lies from the block's first voxel in a volume of `input` size.
fn block_places(input: Geometry, factor: [usize; 3]) -> impl Iterator<Item = (u8, usize)> {
    let [_, height, width] = input.size;
    (0..factor.iter().product()).map(move |tap: usize| {
        let (dz, dy, dx) = (tap / (factor[1] * factor[2]), tap / factor[2] % factor[1], tap % factor[2]);
        (tap as u8, (dz * height + dy) * width + dx)
    })
}

/// Writes the maxima to `y` and which voxel of the block (z, y, x order; the first of equals) held each to `place`.
/// Blocks have at most 256 voxels.
pub(crate) fn max_pool_forward(
    isa: Isa,
    input: Geometry,
    factor: [usize; 3],
    channels: usize,
    x: &[f32],
    y: &mut [f32],
    place: &mut [u8],
) {
    assert!(isa.available(), "internal error: {isa:?} kernels on a processor without them");
    let [_, height, width] = crate::geometry::pooled(input, factor).size;
    let row_len = width * channels;
    let rows = y.par_chunks_mut(row_len).zip(place.par_chunks_mut(row_len));
    rows.enumerate().for_each(|(row, (y, place))| {
        let first = first_row(input, factor, row / height, row % height, 0);
        y.fill(f32::NEG_INFINITY);
        place.fill(0);
        for (tap, offset) in block_places(input, factor) {
            let values = &x[(first + offset) * channels..];
            let row = PoolRow { channels, step: factor[2] * channels, tap };
            // SAFETY: the instruction set is available; the body is safe code.
            unsafe { keep_larger(isa, &row, values, y, place) };
        }
    });
}

/// Brings the slope of the maxima back to the voxels that held them: written where `fresh`, zeros elsewhere; added
/// to what `dx` holds otherwise.
pub(crate) fn max_pool_backward(
    isa: Isa,
    input: Geometry,
    factor: [usize; 3],
    channels: usize,
    dy: &[f32],
    place: &[u8],
    dx: &mut [f32],
    fresh: bool,
) {
    assert!(isa.available(), "internal error: {isa:?} kernels on a processor without them");
    let output = crate::geometry::pooled(input, factor);
    let [depth, height, width] = output.size;
    if fresh && output.size.iter().zip(factor).zip(input.size).any(|((n, f), whole)| n * f != whole) {
        dx.fill(0.0);
    }
    let input_plane = input.size[1] * input.size[2] * channels;
    let row_len = width * channels;
    dx.par_chunks_mut(input.size[0] * input_plane).enumerate().for_each(|(sample, dx)| {
        let used = &mut dx[..depth * factor[0] * input_plane];
        used.par_chunks_mut(factor[0] * input_plane).enumerate().for_each(|(z, dx)| {
            for y in 0..height {
                let from = ((sample * depth + z) * height + y) * row_len;
                let (slope, place) = (&dy[from..][..row_len], &place[from..][..row_len]);
                for (tap, offset) in block_places(input, factor) {
                    let dx = &mut dx[(y * factor[1] * input.size[2] + offset) * channels..];
                    let row = PoolRow { channels, step: factor[2] * channels, tap };
                    // SAFETY: the instruction set is available; the body is safe code.
                    unsafe { give_back(isa, &row, slope, place, dx, fresh) };
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
            let first = first_row(input, factor, plane, voxel / width, voxel % width);
            for (_, offset) in block_places(input, factor) {
                y.iter_mut().zip(&x[(first + offset) * channels..]).for_each(|(sum, value)| *sum += value);
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
