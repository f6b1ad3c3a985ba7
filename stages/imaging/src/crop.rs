//! Boxes in a voxel grid: finding, growing, cutting out (with padding) and pasting back.

use ndarray::{Array, ArrayView3, Axis, Dimension, Slice};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::affine::Affine;
use crate::volume::{Geometry, Image, LabelMap, Shape, Volume};

/// A box of voxels, z, y, x. It may reach beyond the grid it is applied to: what lies outside is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The first voxel, z, y, x; negative when the box begins before the grid.
    pub start: [i64; 3],
    /// The number of voxels, z, y, x.
    pub shape: [usize; 3],
}

/// A box that cannot be cut out.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WindowError {
    /// A box without voxels.
    #[error("window of {0} voxels is empty")]
    Empty(Shape),
    /// A box of more voxels than a volume may have, or one that starts absurdly far away.
    #[error("window of {shape} voxels at z, y, x = {start:?} is too large or too far away")]
    OutOfRange { shape: Shape, start: [i64; 3] },
    /// A volume that was not cut out with this window.
    #[error("volume of {volume} voxels does not fill the window of {window}")]
    NotTheWindow { volume: Shape, window: Shape },
}

impl Window {
    /// The box that is the whole grid.
    pub fn whole(shape: Shape) -> Self {
        Self { start: [0; 3], shape: shape.0 }
    }

    /// A box of `size` voxels (z, y, x) with the centre of a grid of `shape`; where the difference is odd, the extra
    /// voxel is cut from (or added at) the end.
    pub fn centred(shape: Shape, size: [usize; 3]) -> Self {
        Self::whole(shape).resized(size)
    }

    /// A box of `size` voxels (z, y, x) with this box's centre, rounded as in [`Window::centred`].
    #[must_use]
    pub fn resized(self, size: [usize; 3]) -> Self {
        let start = [0, 1, 2].map(|k| self.start[k] + (self.shape[k] as i64 - size[k] as i64).div_euclid(2));
        // Rounding down puts the extra voxel of a crop at the end, and that of a pad at the start; move the latter.
        let start = [0, 1, 2].map(|k| {
            let odd_pad = size[k] > self.shape[k] && (size[k] - self.shape[k]) % 2 == 1;
            start[k] + i64::from(odd_pad)
        });
        Self { start, shape: size }
    }

    /// Grows the box by `voxels` (z, y, x) on both sides. It may now reach beyond the grid; see [`Window::clamped`].
    #[must_use]
    pub fn grown(self, voxels: [usize; 3]) -> Self {
        Self {
            start: [0, 1, 2].map(|k| self.start[k].saturating_sub_unsigned(voxels[k] as u64)),
            shape: [0, 1, 2].map(|k| self.shape[k].saturating_add(voxels[k].saturating_mul(2))),
        }
    }

    /// Grows the box by at least `margin_mm` (z, y, x) on both sides, in whole voxels. Margins must not be negative.
    #[must_use]
    pub fn grown_mm(self, margin_mm: [f64; 3], geometry: &Geometry) -> Self {
        let spacing = geometry.spacing_mm();
        // A margin of 3 mm on 1.0000001 mm voxels is 3 voxels, not 4.
        self.grown([0, 1, 2].map(|k| (margin_mm[k] / spacing[k] - 1e-4).ceil().max(0.0) as usize))
    }

    /// The part of the box inside a grid of `shape`, or `None` when they do not meet.
    pub fn clamped(self, shape: Shape) -> Option<Self> {
        let mut clamped = self;
        for k in 0..3 {
            let end = self.start[k].saturating_add_unsigned(self.shape[k] as u64).min(shape.0[k] as i64);
            clamped.start[k] = self.start[k].max(0);
            if end <= clamped.start[k] {
                return None;
            }
            clamped.shape[k] = (end - clamped.start[k]) as usize;
        }
        Some(clamped)
    }

    /// The grid of the voxels in this box of `source`.
    pub fn geometry(&self, source: &Geometry) -> Geometry {
        let [z, y, x] = self.start.map(|v| v as f64);
        let steps = [0, 1, 2].map(|axis| source.affine.step_mm(axis));
        let origin =
            if self.start == [0; 3] { source.affine.origin_mm() } else { source.affine.apply([x, y, z]) };
        Geometry { shape: Shape(self.shape), affine: Affine::from_columns(steps, origin) }
    }

    /// Fails when the box is empty, or too large or far away to be meant.
    pub fn validate(&self) -> Result<(), WindowError> {
        let shape = Shape(self.shape);
        let limit = 1_i64 << 31;
        match shape.voxels() {
            Some(0) => Err(WindowError::Empty(shape)),
            Some(n)
                if n as u64 <= limit as u64 && self.start.iter().all(|v| (-limit..=limit).contains(v)) =>
            {
                Ok(())
            }
            _ => Err(WindowError::OutOfRange { shape, start: self.start }),
        }
    }

    /// Cuts the box out of a volume; voxels outside the volume get the value `padding`.
    pub fn cut<T: Copy, D: Dimension>(
        &self,
        volume: &Volume<T, D>,
        padding: T,
    ) -> Result<Volume<T, D>, WindowError> {
        self.validate()?;
        let source = *volume.geometry();
        if *self == Self::whole(source.shape) {
            return Ok(volume.clone());
        }
        let mut target = filled(volume, self.shape, padding);
        if let Some(overlap) = self.clamped(source.shape) {
            let offset = [0, 1, 2].map(|k| (overlap.start[k] - self.start[k]) as usize);
            let from = overlap.start.map(|v| v as usize);
            copy_box(volume, from, &mut target, offset, overlap.shape);
        }
        Ok(Volume::new(target, self.geometry(&source)).expect("made with the window's shape"))
    }

    /// Puts a volume that fills this box back into the grid `source`; voxels outside the box get the value `fill`,
    /// padding is dropped.
    pub fn paste<T: Copy, D: Dimension>(
        &self,
        volume: &Volume<T, D>,
        source: &Geometry,
        fill: T,
    ) -> Result<Volume<T, D>, WindowError> {
        self.validate()?;
        if volume.shape().0 != self.shape {
            return Err(WindowError::NotTheWindow { volume: volume.shape(), window: Shape(self.shape) });
        }
        let mut target = filled(volume, source.shape.0, fill);
        if let Some(overlap) = self.clamped(source.shape) {
            let from = [0, 1, 2].map(|k| (overlap.start[k] - self.start[k]) as usize);
            copy_box(volume, from, &mut target, overlap.start.map(|v| v as usize), overlap.shape);
        }
        Ok(Volume::new(target, *source).expect("made with the grid's shape"))
    }
}

/// The smallest box that holds every voxel with a label other than 0; `None` when there is none.
pub fn foreground_window(label: &LabelMap) -> Option<Window> {
    bounds(&label.voxels(), |&v| v != 0)
}

/// The smallest box that holds every voxel that is not 0 in some channel (NaN is not 0); `None` when there is none.
pub fn nonzero_window(image: &Image) -> Option<Window> {
    let boxes = image.voxels().outer_iter().filter_map(|c| bounds(&c, |&v| v != 0.0)).collect::<Vec<_>>();
    boxes.into_iter().reduce(|a, b| {
        let start = [0, 1, 2].map(|k| a.start[k].min(b.start[k]));
        let end = |w: &Window, k: usize| w.start[k] + w.shape[k] as i64;
        Window { start, shape: [0, 1, 2].map(|k| (end(&a, k).max(end(&b, k)) - start[k]) as usize) }
    })
}

fn bounds<T>(voxels: &ArrayView3<'_, T>, inside: impl Fn(&T) -> bool) -> Option<Window> {
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    for (z, plane) in voxels.outer_iter().enumerate() {
        for (y, row) in plane.outer_iter().enumerate() {
            let Some(first) = row.iter().position(&inside) else { continue };
            let last =
                row.len() - 1 - row.iter().rev().position(&inside).expect("one was found from the front");
            for (k, (a, b)) in [(z, z), (y, y), (first, last)].into_iter().enumerate() {
                low[k] = low[k].min(a);
                high[k] = high[k].max(b);
            }
        }
    }
    (low[0] != usize::MAX)
        .then(|| Window { start: low.map(|v| v as i64), shape: [0, 1, 2].map(|k| high[k] - low[k] + 1) })
}

/// An array like the volume's, with other spatial axes.
fn filled<T: Copy, D: Dimension>(like: &Volume<T, D>, shape: [usize; 3], value: T) -> Array<T, D> {
    let mut dim = like.voxels().raw_dim();
    let first = dim.ndim() - 3;
    dim.slice_mut()[first..].copy_from_slice(&shape);
    Array::from_elem(dim, value)
}

fn copy_box<T: Copy, D: Dimension>(
    from: &Volume<T, D>,
    from_start: [usize; 3],
    to: &mut Array<T, D>,
    to_start: [usize; 3],
    shape: [usize; 3],
) {
    let mut source = from.voxels();
    let mut target = to.view_mut();
    let first = source.ndim() - 3;
    for k in 0..3 {
        let axis = Axis(first + k);
        source.slice_axis_inplace(axis, Slice::from(from_start[k]..from_start[k] + shape[k]));
        target.slice_axis_inplace(axis, Slice::from(to_start[k]..to_start[k] + shape[k]));
    }
    target.assign(&source);
}
