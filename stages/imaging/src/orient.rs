//! Which way the index axes run in the patient, and flips and permutations that turn a grid upright (RAS).

use std::fmt;

use ndarray::{ArrayView, Axis, Dimension, IntoDimension};
use serde::{Deserialize, Serialize};

use crate::affine::{Affine, closest_rotation};
use crate::volume::{Geometry, Shape, Volume};

/// The anatomical direction in which each index axis grows, in index order x, y, z; displays as `RAS`, `LPS`, …
///
/// The closest direction is named when the grid is oblique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation {
    /// For index axis x, y, z: the RAS axis it follows (0 = right–left, 1 = anterior–posterior, 2 = superior–inferior).
    world_axis: [usize; 3],
    /// For index axis x, y, z: whether it grows towards left, posterior or inferior.
    reversed: [bool; 3],
}

impl Orientation {
    /// The orientation of a grid, by nibabel's rule (`io_orientation`): shears are removed first, then index axes
    /// are assigned to world axes from the best aligned to the least, each world axis once.
    ///
    /// `affine` must not be singular (see [`Affine::defect`]).
    pub fn of(affine: &Affine) -> Self {
        let linear = affine.linear();
        let [sz, sy, sx] = affine.spacing_mm();
        let lengths = [sx, sy, sz].map(|v| if v == 0.0 { 1.0 } else { v });
        let unit = linear.map(|row| [row[0] / lengths[0], row[1] / lengths[1], row[2] / lengths[2]]);
        let rotation = closest_rotation(&unit);
        let alignment = |axis: usize| (0..3).map(|row| rotation[row][axis].powi(2)).fold(0.0_f64, f64::max);
        let mut order = [0, 1, 2];
        // Stable, as in nibabel: equally aligned axes keep their index order.
        order.sort_by(|&a, &b| alignment(b).total_cmp(&alignment(a)));
        let mut taken = [false; 3];
        let mut orientation = Self { world_axis: [0, 1, 2], reversed: [false; 3] };
        for axis in order {
            let mut best = None;
            for row in (0..3).filter(|&row| !taken[row]) {
                let magnitude = rotation[row][axis].abs();
                if best.is_none_or(|(_, m)| magnitude > m) {
                    best = Some((row, magnitude));
                }
            }
            let (row, _) = best.expect("three index axes take three world axes");
            taken[row] = true;
            orientation.world_axis[axis] = row;
            orientation.reversed[axis] = rotation[row][axis] < 0.0;
        }
        orientation
    }

    /// Whether the index axes run right, anterior and superior.
    pub fn is_ras(self) -> bool {
        self.world_axis == [0, 1, 2] && self.reversed == [false; 3]
    }

    /// The flips and permutation that turn this orientation into RAS.
    pub fn to_ras(self) -> Reorientation {
        let mut reorientation = Reorientation::IDENTITY;
        for axis in 0..3 {
            // Index axis k (x, y, z) is array axis 2 - k (z, y, x).
            let target = 2 - self.world_axis[axis];
            reorientation.source_axis[target] = 2 - axis;
            reorientation.flipped[target] = self.reversed[axis];
        }
        reorientation
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CODES: [[char; 2]; 3] = [['R', 'L'], ['A', 'P'], ['S', 'I']];
        for axis in 0..3 {
            write!(f, "{}", CODES[self.world_axis[axis]][usize::from(self.reversed[axis])])?;
        }
        Ok(())
    }
}

/// A permutation of the three spatial axes with flips: exact, no voxel value changes.
///
/// Target axis `t` (0 = z, 1 = y, 2 = x) is source axis `source_axis[t]`, reversed where `flipped[t]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ReorientationRecord")]
pub struct Reorientation {
    source_axis: [usize; 3],
    flipped: [bool; 3],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReorientationRecord {
    source_axis: [usize; 3],
    flipped: [bool; 3],
}

impl TryFrom<ReorientationRecord> for Reorientation {
    type Error = String;

    fn try_from(record: ReorientationRecord) -> Result<Self, String> {
        let mut sorted = record.source_axis;
        sorted.sort_unstable();
        if sorted != [0, 1, 2] {
            return Err(format!("source_axis {:?} is not a permutation of 0, 1, 2", record.source_axis));
        }
        Ok(Self { source_axis: record.source_axis, flipped: record.flipped })
    }
}

impl Reorientation {
    /// Leaves every voxel where it is.
    pub const IDENTITY: Self = Self { source_axis: [0, 1, 2], flipped: [false; 3] };

    /// Whether nothing moves.
    pub fn is_identity(self) -> bool {
        self == Self::IDENTITY
    }

    /// The reorientation that undoes this one.
    #[must_use]
    pub fn inverse(self) -> Self {
        let mut inverse = Self::IDENTITY;
        for target in 0..3 {
            let source = self.source_axis[target];
            inverse.source_axis[source] = target;
            inverse.flipped[source] = self.flipped[target];
        }
        inverse
    }

    /// The grid after reorienting: every voxel keeps its place in millimetres.
    pub fn apply_geometry(self, source: &Geometry) -> Geometry {
        let mut steps = [[0.0; 3]; 3];
        let mut origin = source.affine.origin_mm();
        let mut shape = [0; 3];
        for target in 0..3 {
            let axis = self.source_axis[target];
            shape[target] = source.shape.0[axis];
            let mut step = source.affine.step_mm(2 - axis);
            if self.flipped[target] {
                let last = shape[target].saturating_sub(1) as f64;
                for k in 0..3 {
                    origin[k] += last * step[k];
                    step[k] = 0.0 - step[k]; // not `-step`, which would write -0.0
                }
            }
            steps[2 - target] = step;
        }
        Geometry { shape: Shape(shape), affine: Affine::from_columns(steps, origin) }
    }

    /// Reorients a volume. Channels are untouched.
    pub fn apply<T: Clone, D: Dimension>(self, volume: &Volume<T, D>) -> Volume<T, D> {
        if self.is_identity() {
            return volume.clone();
        }
        let view = self.apply_view(volume.voxels());
        Volume::new(view.as_standard_layout().into_owned(), self.apply_geometry(volume.geometry()))
            .expect("array and geometry are permuted alike")
    }

    fn apply_view<T, D: Dimension>(self, view: ArrayView<'_, T, D>) -> ArrayView<'_, T, D> {
        let first = view.ndim() - 3;
        let mut axes = D::zeros(view.ndim());
        for (k, axis) in axes.slice_mut().iter_mut().enumerate() {
            *axis = if k < first { k } else { first + self.source_axis[k - first] };
        }
        let mut view = view.permuted_axes(axes.into_dimension());
        for target in 0..3 {
            if self.flipped[target] {
                view.invert_axis(Axis(first + target));
            }
        }
        view
    }
}
