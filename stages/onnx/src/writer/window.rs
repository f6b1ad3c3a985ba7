//! Convolution and pooling windows, and the spatial size that each leaves: always an exact ratio, or an error.

use super::value::Scale;
use super::{BuildError, Value, setting};

/// Step, border and spacing of a convolution or pooling window, one entry a spatial axis in the order `(z), y, x`.
///
/// The window must map a size `n` that divides by the stride to exactly `n / stride` (for a transposed convolution:
/// `n * stride`): sizes then stay exact ratios of the input's, and [`DIVISOR_KEY`](super::DIVISOR_KEY) follows from the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Distance between windows, in voxels of the larger side.
    pub stride: Vec<usize>,
    /// Zeros put at both ends of an axis (for max pooling: minus infinity).
    pub padding: Vec<usize>,
    /// Distance between the taps of a kernel; 1 is a dense kernel.
    pub dilation: Vec<usize>,
    /// Channel groups; 1 connects every channel to every other.
    pub groups: usize,
}

impl Window {
    /// Returns the window of a dense odd kernel that keeps `n / stride` voxels: padding `(kernel - 1) / 2`.
    pub fn same(kernel: &[usize], stride: &[usize]) -> Self {
        Self {
            stride: stride.to_vec(),
            padding: kernel.iter().map(|k| k.saturating_sub(1) / 2).collect(),
            dilation: vec![1; kernel.len()],
            groups: 1,
        }
    }

    /// Returns the window without border that steps by `stride`: a 2×2×2 pool, or a transposed convolution whose
    /// kernel is its stride.
    pub fn tight(stride: &[usize]) -> Self {
        Self {
            stride: stride.to_vec(),
            padding: vec![0; stride.len()],
            dilation: vec![1; stride.len()],
            groups: 1,
        }
    }

    /// Checks lengths and ranges; which sizes fit is for [`shrink`] and [`enlarge`].
    pub(super) fn check(&self, node: &str, expected: usize) -> Result<(), BuildError> {
        let parts = [&self.stride, &self.padding, &self.dilation];
        for (part, sizes) in ["the stride", "the padding", "the dilation"].into_iter().zip(parts) {
            if sizes.len() != expected {
                let found = sizes.len();
                return Err(BuildError::Axes {
                    node: node.to_owned(),
                    what: part.to_owned(),
                    found,
                    expected,
                });
            }
        }
        if self.groups == 0 {
            return Err(setting(node, "the number of groups", &0, "at least 1"));
        }
        for (axis, (stride, dilation)) in self.stride.iter().zip(&self.dilation).enumerate() {
            if *stride == 0 || *dilation == 0 {
                let reason = format!("stride {stride} and dilation {dilation} must both be at least 1");
                return Err(BuildError::Window { node: node.to_owned(), axis, reason });
            }
        }
        Ok(())
    }
}

/// Returns the scales after a window with `floor((n + 2p - d(k - 1) - 1) / s) + 1 = n / s` outputs on each axis.
pub(super) fn shrink(
    node: &str,
    input: &Value,
    kernel: &[usize],
    window: &Window,
) -> Result<Vec<Scale>, BuildError> {
    for (axis, size) in kernel.iter().enumerate() {
        let (stride, padding) = (window.stride[axis], window.padding[axis]);
        let reach = size.saturating_sub(1).saturating_mul(window.dilation[axis]);
        let border = padding.saturating_mul(2);
        if *size == 0 || border > reach || border.saturating_add(stride) <= reach {
            let reason = format!(
                "kernel {size}, stride {stride}, padding {padding} and dilation {} do not map n voxels to n / {stride}",
                window.dilation[axis]
            );
            return Err(BuildError::Window { node: node.to_owned(), axis, reason });
        }
    }
    scaled(node, input, |axis| (1, window.stride[axis]))
}

/// Returns the scales after a transposed window with `(n - 1)s - 2p + d(k - 1) + 1 = n s` outputs on each axis.
pub(super) fn enlarge(
    node: &str,
    input: &Value,
    kernel: &[usize],
    window: &Window,
) -> Result<Vec<Scale>, BuildError> {
    for (axis, size) in kernel.iter().enumerate() {
        let (stride, padding, dilation) = (window.stride[axis], window.padding[axis], window.dilation[axis]);
        let reach = size.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
        if stride.saturating_add(padding.saturating_mul(2)) != reach {
            let reason = format!(
                "kernel {size}, stride {stride}, padding {padding} and dilation {dilation} do not map n voxels to n · {stride}"
            );
            return Err(BuildError::Window { node: node.to_owned(), axis, reason });
        }
    }
    scaled(node, input, |axis| (window.stride[axis], 1))
}

pub(super) fn scaled(
    node: &str,
    input: &Value,
    factor: impl Fn(usize) -> (usize, usize),
) -> Result<Vec<Scale>, BuildError> {
    let scales = input.scales.iter().enumerate().map(|(axis, scale)| {
        let (up, down) = factor(axis);
        if up == 0 || down == 0 {
            let reason = "a factor of 0".to_owned();
            return Err(BuildError::Window { node: node.to_owned(), axis, reason });
        }
        scale.times(up, down).ok_or_else(|| overflow(node, axis))
    });
    scales.collect()
}

pub(super) fn overflow(node: &str, axis: usize) -> BuildError {
    let reason = "the size ratio to the input does not fit 64 bits".to_owned();
    BuildError::Window { node: node.to_owned(), axis, reason }
}
