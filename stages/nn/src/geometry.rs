//! Sizes of activations and of the windows that slide over them. Knows integers, no values.

use serde::{Deserialize, Serialize};

/// Samples and spatial size of an activation; axis order z, y, x. A 2D activation has depth 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub samples: usize,
    /// Voxels along z, y, x.
    pub size: [usize; 3],
}

impl Geometry {
    /// Voxels of one sample.
    pub fn voxels(&self) -> usize {
        self.size.iter().product()
    }

    /// Rows of the channels-last matrix: voxels of all samples, x fastest, sample slowest.
    pub fn rows(&self) -> usize {
        self.samples * self.voxels()
    }
}

/// A convolution window; axis order z, y, x. In 2D the z entries are kernel 1, stride 1, padding 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    /// Zeros added on both sides of each axis.
    pub padding: [usize; 3],
}

impl Window {
    /// Stride 1 and the padding that keeps the size; `kernel` must be odd.
    pub fn same(kernel: [usize; 3]) -> Self {
        Self { kernel, stride: [1; 3], padding: kernel.map(|k| k / 2) }
    }

    /// Number of kernel positions.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Size after the window slid over `input`; `None` where the kernel does not fit.
    pub fn output(&self, input: Geometry) -> Option<Geometry> {
        let mut size = input.size;
        for (axis, size) in size.iter_mut().enumerate() {
            let padded = *size + 2 * self.padding[axis];
            *size = padded.checked_sub(self.kernel[axis])? / self.stride[axis] + 1;
        }
        Some(Geometry { samples: input.samples, size })
    }
}

/// Size after upsampling each axis by `factor`.
pub(crate) fn upsampled(input: Geometry, factor: [usize; 3]) -> Geometry {
    Geometry { samples: input.samples, size: std::array::from_fn(|a| input.size[a] * factor[a]) }
}

/// Size after pooling each axis by `factor`; a remainder at the far side is dropped, as PyTorch does.
pub(crate) fn pooled(input: Geometry, factor: [usize; 3]) -> Geometry {
    Geometry { samples: input.samples, size: std::array::from_fn(|a| input.size[a] / factor[a]) }
}

/// The smallest multiple of `step` on each axis that holds `size`.
pub(crate) fn round_up(size: [usize; 3], step: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|a| size[a].max(1).div_ceil(step[a]) * step[a])
}
