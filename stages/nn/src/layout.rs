//! Converts parameters between the layout of PyTorch and ONNX (in files and in the public API) and the layout the
//! kernels read. Permutes values, never changes one.
//!
//! | role | PyTorch, ONNX | internal |
//! |---|---|---|
//! | convolution weight | `[cout, cin, kz, ky, kx]` | `[kz, ky, kx, cin, cout]` |
//! | transposed convolution weight | `[cin, cout, kz, ky, kx]` | `[kz, ky, cin, kx, cout]` |
//! | all others | `[channels]` | the same |

use crate::network::{ParameterSpec, Role};

/// Calls `visit(external index, internal index)` for every value of the parameter.
fn for_each_pair(spec: &ParameterSpec, mut visit: impl FnMut(usize, usize)) {
    let [first, second, spatial @ ..] = spec.shape.as_slice() else {
        return (0..spec.len()).for_each(|i| visit(i, i));
    };
    let (first, second) = (*first, *second);
    let taps: usize = spatial.iter().product();
    let width = spatial.last().copied().unwrap_or(1);
    for a in 0..first {
        for b in 0..second {
            for tap in 0..taps {
                let internal = match spec.role {
                    Role::TransposedConvWeight => {
                        let (outer, x) = (tap / width, tap % width);
                        ((outer * first + a) * width + x) * second + b
                    }
                    _ => (tap * second + b) * first + a,
                };
                visit((a * second + b) * taps + tap, internal);
            }
        }
    }
}

/// From the layout of PyTorch; `values` has `spec.len()` entries.
pub(crate) fn to_internal(spec: &ParameterSpec, values: &[f32]) -> Vec<f32> {
    let mut internal = vec![0.0; values.len()];
    for_each_pair(spec, |outside, inside| internal[inside] = values[outside]);
    internal
}

/// To the layout of PyTorch; `values` has `spec.len()` entries.
pub(crate) fn to_external(spec: &ParameterSpec, values: &[f32]) -> Vec<f32> {
    let mut external = vec![0.0; values.len()];
    for_each_pair(spec, |outside, inside| external[outside] = values[inside]);
    external
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(role: Role, shape: &[usize], external_index: &[usize], internal_index: usize) {
        let spec = ParameterSpec { name: "w".into(), shape: shape.to_vec(), role };
        let values: Vec<f32> = (0..spec.len()).map(|i| i as f32).collect();
        let internal = to_internal(&spec, &values);
        let flat = external_index.iter().zip(shape).fold(0, |flat, (i, n)| flat * n + i);
        assert_eq!(internal[internal_index], flat as f32);
        assert_eq!(to_external(&spec, &internal), values, "round trip");
    }

    #[test]
    fn a_weight_lies_where_the_table_says() {
        // [cout=2, cin=3, 2, 2, 5], entry (1, 2, 1, 0, 3) -> [2, 2, 5, 3, 2] entry (1, 0, 3, 2, 1).
        check(Role::ConvWeight, &[2, 3, 2, 2, 5], &[1, 2, 1, 0, 3], ((10 + 3) * 3 + 2) * 2 + 1);
        // [cin=3, cout=2, 2, 2, 5], entry (2, 1, 1, 0, 3) -> [2, 2, 3, 5, 2] entry (1, 0, 2, 3, 1).
        check(Role::TransposedConvWeight, &[3, 2, 2, 2, 5], &[2, 1, 1, 0, 3], ((2 * 3 + 2) * 5 + 3) * 2 + 1);
        check(Role::ConvWeight, &[4, 1, 3, 3], &[3, 0, 2, 1], 7 * 4 + 3);
        check(Role::Bias, &[4], &[3], 3);
    }
}
