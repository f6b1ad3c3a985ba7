//! Functions of each value, and products and sums of whole activations; forward and backward. A value never meets
//! another one, so the split over threads is free.

use rayon::prelude::*;

use crate::network::Activation;

/// Rows per task.
const ROWS: usize = 2048;

const INVERSE_ROOT_TWO: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// `1/√(2π)`.
const NORMAL_DENSITY: f32 = 0.398_942_3;

/// Error function to 1.2e-7 of its value, by the rational approximation of Numerical Recipes' `erfcc` in f64.
fn erf(x: f32) -> f32 {
    const TERMS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let x = f64::from(x);
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let sum = TERMS.iter().rev().fold(0.0, |sum, term| sum * t + term);
    let tail = t * (sum - x * x).exp();
    (if x >= 0.0 { 1.0 - tail } else { tail - 1.0 }) as f32
}

/// Value and slope of the function at `x`; `slope` is that of a parametric ReLU below zero.
fn value_and_slope(activation: Activation, x: f32, slope: f32) -> (f32, f32) {
    match activation {
        Activation::Relu | Activation::LeakyRelu | Activation::Prelu => {
            if x > 0.0 {
                (x, 1.0)
            } else {
                (x * slope, slope)
            }
        }
        Activation::Gelu => {
            let share = 0.5 * (1.0 + erf(x * INVERSE_ROOT_TWO));
            (x * share, share + x * NORMAL_DENSITY * (-0.5 * x * x).exp())
        }
        Activation::Sigmoid => {
            let y = 1.0 / (1.0 + (-x).exp());
            (y, y * (1.0 - y))
        }
        Activation::Tanh => {
            let y = x.tanh();
            (y, 1.0 - y * y)
        }
    }
}

/// `y = f(x)`; `slopes`: one a channel.
pub(crate) fn activation_forward(activation: Activation, slopes: &[f32], x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "internal error: activation lengths");
    let channels = slopes.len();
    x.par_chunks(ROWS * channels).zip(y.par_chunks_mut(ROWS * channels)).for_each(|(x, y)| {
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            for ((x, y), slope) in x.iter().zip(y).zip(slopes) {
                *y = value_and_slope(activation, *x, *slope).0;
            }
        }
    });
}

/// Turns the slope of `y` into that of `x`, in place, and returns the slopes of the `slopes`: sums in parts that the
/// size alone defines.
pub(crate) fn activation_backward(
    activation: Activation,
    slopes: &[f32],
    x: &[f32],
    dy: &mut [f32],
) -> Vec<f32> {
    let channels = slopes.len();
    let parts: Vec<Vec<f32>> = x
        .par_chunks(ROWS * channels)
        .zip(dy.par_chunks_mut(ROWS * channels))
        .map(|(x, dy)| {
            let mut sums = vec![0.0_f32; channels];
            for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact_mut(channels)) {
                for (((x, dy), slope), sum) in x.iter().zip(dy).zip(slopes).zip(&mut sums) {
                    *sum += if *x > 0.0 { 0.0 } else { *x * *dy };
                    *dy *= value_and_slope(activation, *x, *slope).1;
                }
            }
            sums
        })
        .collect();
    let mut total = vec![0.0; channels];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    total
}

/// `y = a ∘ b` for any function of two values.
pub(crate) fn combine(a: &[f32], b: &[f32], y: &mut [f32], combine: impl Fn(f32, f32) -> f32 + Sync) {
    assert_eq!((a.len(), b.len()), (y.len(), y.len()), "internal error: lengths of a combination");
    let inputs = a.par_chunks(1 << 15).zip(b.par_chunks(1 << 15));
    y.par_chunks_mut(1 << 15).zip(inputs).for_each(|(y, (a, b))| {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = combine(*a, *b);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_its_tabled_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, expected) in
            [(0.0, 0.0), (0.1, 0.112_462_916), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)]
        {
            assert!((erf(x) - expected).abs() < 2e-7, "{x}: {}", erf(x));
            assert!((erf(-x) + expected).abs() < 2e-7, "-{x}: {}", erf(-x));
        }
    }
}
