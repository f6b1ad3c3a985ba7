//! The two register-blocked inner kernels: rows of outputs from weights, and weight gradients from rows.
#![expect(unsafe_code, reason = "SIMD inner loops over raw pointers")]
#![expect(clippy::inline_always, reason = "bodies must be compiled inside their target-feature wrapper")]

use super::dispatch;
use super::simd::Simd;

/// One (kz, ky) position of a window: where its inputs and its weights start.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    pub(super) input: *const f32,
    pub(super) weight: *const f32,
}

/// A row of output groups: `out[g][0..columns] = bias + Σ_tap Σ_j input_tap[g·step + j] · weight_tap[j][..]`.
pub(super) struct OutputRow<'a> {
    pub(super) taps: &'a [Tap],
    /// Inputs per tap.
    pub(super) depth: usize,
    /// Values between the inputs of two groups.
    pub(super) step: usize,
    /// Values between two weight rows, a multiple of 8, at least `columns`.
    pub(super) padded: usize,
    /// `padded` values, or null for zero.
    pub(super) bias: *const f32,
    pub(super) out: *mut f32,
    /// Values between two output groups.
    pub(super) out_step: usize,
    pub(super) groups: usize,
    /// Values written per group.
    pub(super) columns: usize,
}

dispatch! {
    /// Computes one [`OutputRow`]. Per output: bias first, then taps in order, then `j` ascending, fused.
    pub(super) fn output_row = output_row_body(row: &OutputRow<'_>)
}

#[inline(always)]
unsafe fn output_row_body<Wide: Simd, Narrow: Simd>(row: &OutputRow<'_>) {
    let mut column = 0;
    while column < row.padded {
        let left = row.padded - column;
        // SAFETY: the caller's contract, restricted to columns `column..`.
        unsafe {
            if left >= 2 * Wide::LANES {
                groups::<Wide, 2>(row, column);
                column += 2 * Wide::LANES;
            } else if left >= Wide::LANES {
                groups::<Wide, 1>(row, column);
                column += Wide::LANES;
            } else {
                groups::<Narrow, 1>(row, column);
                column += Narrow::LANES;
            }
        }
    }
}

/// Calls `$call::<S, rows, V>` for a run-time `rows` of 1 to 12.
macro_rules! with_rows {
    ($rows:expr, $call:ident, $S:ty, $V:expr, ($($arg:expr),*)) => {
        match $rows {
            1 => $call::<$S, 1, { $V }>($($arg),*),
            2 => $call::<$S, 2, { $V }>($($arg),*),
            3 => $call::<$S, 3, { $V }>($($arg),*),
            4 => $call::<$S, 4, { $V }>($($arg),*),
            5 => $call::<$S, 5, { $V }>($($arg),*),
            6 => $call::<$S, 6, { $V }>($($arg),*),
            7 => $call::<$S, 7, { $V }>($($arg),*),
            8 => $call::<$S, 8, { $V }>($($arg),*),
            9 => $call::<$S, 9, { $V }>($($arg),*),
            10 => $call::<$S, 10, { $V }>($($arg),*),
            11 => $call::<$S, 11, { $V }>($($arg),*),
            12 => $call::<$S, 12, { $V }>($($arg),*),
            rows => unreachable!("internal error: a block of {rows} rows"),
        }
    };
}

/// Size of the next block when `left` rows are split into blocks of nearly equal size, none above `largest`.
///
/// The loops over blocks stand in their functions: a closure would not inherit the instruction set of the function it
/// stands in, and every intrinsic inside would become a call.
#[inline(always)]
fn next_block(left: usize, largest: usize) -> usize {
    left / left.div_ceil(largest)
}

#[inline(always)]
unsafe fn groups<S: Simd, const V: usize>(row: &OutputRow<'_>, column: usize) {
    let mut first = 0;
    while first < row.groups {
        let count = next_block(row.groups - first, S::rows(V));
        // SAFETY: groups `first..first + count` and columns `column..column + V·LANES` lie inside the row.
        unsafe { with_rows!(count, output_block, S, V, (row, first, column)) }
        first += count;
    }
}

#[inline(always)]
unsafe fn output_block<S: Simd, const R: usize, const V: usize>(
    row: &OutputRow<'_>,
    first: usize,
    column: usize,
) {
    // SAFETY: inputs, weights, bias and outputs of these groups and columns are valid by the caller's contract;
    // lanes beyond `columns` are stored to a local array only.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; R];
        if !row.bias.is_null() {
            for (v, lane) in (0..V).map(|v| (v, column + v * S::LANES)) {
                let bias = S::load(row.bias.add(lane));
                for sum in &mut sums {
                    sum[v] = bias;
                }
            }
        }
        for tap in row.taps {
            let mut input = tap.input.add(first * row.step);
            let mut weight = tap.weight.add(column);
            for _ in 0..row.depth {
                let mut weights = [S::splat(0.0); V];
                for (v, vector) in weights.iter_mut().enumerate() {
                    *vector = S::load(weight.add(v * S::LANES));
                }
                for (r, sum) in sums.iter_mut().enumerate() {
                    let value = S::splat(*input.add(r * row.step));
                    for v in 0..V {
                        sum[v] = value.fma(weights[v], sum[v]);
                    }
                }
                input = input.add(1);
                weight = weight.add(row.padded);
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            for (v, vector) in sum.iter().enumerate() {
                let lane = column + v * S::LANES;
                let out = row.out.add((first + r) * row.out_step + lane);
                if lane + S::LANES <= row.columns {
                    vector.store(out);
                } else {
                    let mut spill = [0.0; 16];
                    vector.store(spill.as_mut_ptr());
                    for (i, value) in spill.iter().enumerate().take(row.columns.saturating_sub(lane)) {
                        *out.add(i) = *value;
                    }
                }
            }
        }
    }
}

/// Adds the products of one row to a weight gradient:
/// `gradient[j][0..padded] += Σ_g input[g·step + j] · slope[g][0..padded]`, `g` ascending.
pub(super) struct GradientRow {
    pub(super) input: *const f32,
    /// Values between the inputs of two groups.
    pub(super) step: usize,
    pub(super) depth: usize,
    pub(super) slope: *const f32,
    pub(super) groups: usize,
    /// Values per group in `slope` and per row of `gradient`, a multiple of 8.
    pub(super) padded: usize,
    pub(super) gradient: *mut f32,
}

dispatch! {
    /// Accumulates one [`GradientRow`].
    pub(super) fn gradient_row = gradient_row_body(row: &GradientRow)
}

#[inline(always)]
unsafe fn gradient_row_body<Wide: Simd, Narrow: Simd>(row: &GradientRow) {
    let mut column = 0;
    while column < row.padded {
        let left = row.padded - column;
        // SAFETY: the caller's contract, restricted to columns `column..`.
        unsafe {
            if left >= 2 * Wide::LANES {
                depths::<Wide, 2>(row, column);
                column += 2 * Wide::LANES;
            } else if left >= Wide::LANES {
                depths::<Wide, 1>(row, column);
                column += Wide::LANES;
            } else {
                depths::<Narrow, 1>(row, column);
                column += Narrow::LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn depths<S: Simd, const V: usize>(row: &GradientRow, column: usize) {
    let mut first = 0;
    while first < row.depth {
        let count = next_block(row.depth - first, S::rows(V));
        // SAFETY: depths `first..first + count` and columns `column..column + V·LANES` lie inside the row.
        unsafe { with_rows!(count, gradient_block, S, V, (row, first, column)) }
        first += count;
    }
}

#[inline(always)]
unsafe fn gradient_block<S: Simd, const R: usize, const V: usize>(
    row: &GradientRow,
    first: usize,
    column: usize,
) {
    // SAFETY: inputs, slopes and gradients of these depths and columns are valid by the caller's contract.
    unsafe {
        let gradient = row.gradient.add(first * row.padded + column);
        let mut sums = [[S::splat(0.0); V]; R];
        for (r, sum) in sums.iter_mut().enumerate() {
            for (v, vector) in sum.iter_mut().enumerate() {
                *vector = S::load(gradient.add(r * row.padded + v * S::LANES));
            }
        }
        let mut input = row.input.add(first);
        let mut slope = row.slope.add(column);
        for _ in 0..row.groups {
            let mut slopes = [S::splat(0.0); V];
            for (v, vector) in slopes.iter_mut().enumerate() {
                *vector = S::load(slope.add(v * S::LANES));
            }
            for (r, sum) in sums.iter_mut().enumerate() {
                let value = S::splat(*input.add(r));
                for v in 0..V {
                    sum[v] = value.fma(slopes[v], sum[v]);
                }
            }
            input = input.add(row.step);
            slope = slope.add(row.padded);
        }
        for (r, sum) in sums.iter().enumerate() {
            for (v, vector) in sum.iter().enumerate() {
                vector.store(gradient.add(r * row.padded + v * S::LANES));
            }
        }
    }
}
