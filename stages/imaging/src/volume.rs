//! Voxels with their place in space. Owns the axis order and the invariant that array and geometry agree.

use std::fmt;

use ndarray::{Array, ArrayView, Dimension, Ix3, Ix4};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::affine::Affine;
use crate::orient::Orientation;

/// The size of a voxel grid, **z, y, x**. Displays as `35×51×36`, in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(pub [usize; 3]);

impl Shape {
    /// The number of voxels of one channel; `None` when it does not fit `usize`.
    pub fn voxels(self) -> Option<usize> {
        self.0.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [z, y, x] = self.0;
        write!(f, "{z}×{y}×{x}")
    }
}

/// A voxel grid in space: how many voxels, and where each one lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Number of voxels, z, y, x.
    pub shape: Shape,
    /// Voxel index **(x, y, z)** to millimetres in RAS space.
    pub affine: Affine,
}

impl Geometry {
    /// A grid of `shape` (z, y, x) placed by `affine`.
    pub fn new(shape: [usize; 3], affine: Affine) -> Self {
        Self { shape: Shape(shape), affine }
    }

    /// An axis-aligned RAS grid with voxels of `spacing_mm` (z, y, x), voxel (0, 0, 0) at the origin.
    pub fn with_spacing(shape: [usize; 3], spacing_mm: [f64; 3]) -> Self {
        Self::new(shape, Affine::from_spacing(spacing_mm))
    }

    /// The voxel size in millimetres, z, y, x.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.affine.spacing_mm()
    }

    /// The anatomical direction of each index axis, such as `RAS` (index order x, y, z).
    pub fn orientation(&self) -> Orientation {
        Orientation::of(&self.affine)
    }
}

/// An array of voxels `[…, z, y, x]` in C order and the grid it lies on.
///
/// The last three axes of the array always have the geometry's shape, and the array is always
/// contiguous and never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume<T, D: Dimension> {
    voxels: Array<T, D>,
    geometry: Geometry,
}

/// An intensity image, `[c, z, y, x]`.
pub type Image = Volume<f32, Ix4>;

/// A label map, `[z, y, x]`; 0 is background.
pub type LabelMap = Volume<u8, Ix3>;

/// An array that cannot be a volume.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VolumeError {
    /// The array does not fit the geometry it was given.
    #[error("array of {array:?} does not fit a grid of {grid} voxels (z×y×x)")]
    Mismatch {
        /// The array's shape, all axes.
        array: Vec<usize>,
        /// The geometry's shape.
        grid: Shape,
    },
    /// An axis of length 0.
    #[error("array of {0:?} has no voxels")]
    Empty(Vec<usize>),
}

impl<T: Clone, D: Dimension> Volume<T, D> {
    /// Joins an array with its grid. An array in another memory order is copied into C order.
    ///
    /// Fails when the last three axes of `voxels` differ from the geometry's shape, or an axis has length 0.
    pub fn new(voxels: Array<T, D>, geometry: Geometry) -> Result<Self, VolumeError> {
        let shape = voxels.shape();
        if shape.len() < 3 || shape[shape.len() - 3..] != geometry.shape.0 {
            return Err(VolumeError::Mismatch { array: shape.to_vec(), grid: geometry.shape });
        }
        if voxels.is_empty() {
            return Err(VolumeError::Empty(shape.to_vec()));
        }
        let voxels =
            if voxels.is_standard_layout() { voxels } else { voxels.as_standard_layout().into_owned() };
        Ok(Self { voxels, geometry })
    }

    /// The grid.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The number of voxels along z, y, x.
    pub fn shape(&self) -> Shape {
        self.geometry.shape
    }

    /// The voxels, `[…, z, y, x]`.
    pub fn voxels(&self) -> ArrayView<'_, T, D> {
        self.voxels.view()
    }

    /// All voxels in C order, x fastest, channels slowest.
    pub fn as_slice(&self) -> &[T] {
        self.voxels.as_slice().expect("a volume is contiguous by construction")
    }

    /// All voxels in C order, for changing in place.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.voxels.as_slice_mut().expect("a volume is contiguous by construction")
    }

    /// Takes the volume apart.
    pub fn into_parts(self) -> (Array<T, D>, Geometry) {
        (self.voxels, self.geometry)
    }
}

impl Image {
    /// An image from voxels in C order, x fastest, channels slowest.
    pub fn from_vec(voxels: Vec<f32>, channels: usize, geometry: Geometry) -> Result<Self, VolumeError> {
        let [z, y, x] = geometry.shape.0;
        let length = voxels.len();
        let array = Array::from_shape_vec((channels, z, y, x), voxels)
            .map_err(|_| VolumeError::Mismatch { array: vec![channels, length], grid: geometry.shape })?;
        Self::new(array, geometry)
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.voxels.shape()[0]
    }

    /// The voxels of one channel in C order. Panics when there is no such channel.
    pub fn channel(&self, channel: usize) -> &[f32] {
        let n = self.as_slice().len() / self.channels();
        &self.as_slice()[channel * n..(channel + 1) * n]
    }
}

impl LabelMap {
    /// A label map from voxels in C order, x fastest.
    pub fn from_vec(voxels: Vec<u8>, geometry: Geometry) -> Result<Self, VolumeError> {
        let [z, y, x] = geometry.shape.0;
        let length = voxels.len();
        let array = Array::from_shape_vec((z, y, x), voxels)
            .map_err(|_| VolumeError::Mismatch { array: vec![length], grid: geometry.shape })?;
        Self::new(array, geometry)
    }

    /// The number of voxels of each label value, 0 to 255.
    pub fn histogram(&self) -> [u64; 256] {
        let mut counts = [0_u64; 256];
        for &label in self.as_slice() {
            counts[usize::from(label)] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, ShapeBuilder};

    #[test]
    fn an_array_of_another_shape_is_refused() {
        let geometry = Geometry::with_spacing([2, 3, 4], [1.0; 3]);
        let error = LabelMap::new(Array3::zeros((4, 3, 2)), geometry).expect_err("axes are swapped");
        assert_eq!(error.to_string(), "array of [4, 3, 2] does not fit a grid of 2×3×4 voxels (z×y×x)");
        assert!(Image::from_vec(vec![0.0; 24], 2, geometry).is_err());
        assert!(Image::from_vec(vec![0.0; 48], 2, geometry).is_ok());
    }

    #[test]
    fn fortran_order_is_copied_into_c_order() {
        let geometry = Geometry::with_spacing([2, 1, 2], [1.0; 3]);
        let fortran = Array3::from_shape_vec((2, 1, 2).f(), vec![1_u8, 2, 3, 4]).expect("four voxels");
        let label = LabelMap::new(fortran, geometry).expect("same shape");
        assert_eq!(label.as_slice(), [1, 3, 2, 4]);
    }
}
