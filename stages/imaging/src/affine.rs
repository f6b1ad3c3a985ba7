//! The map from voxel indices to millimetres, and the little linear algebra it needs.

use serde::{Deserialize, Serialize};

/// Maps a voxel index `(x, y, z)` to millimetres in RAS space, as NIfTI and nibabel do.
///
/// Row-major 4×4; the last row is `0 0 0 1`. Column `k` of the upper left 3×3 block is the step in millimetres
/// from one voxel to the next along index axis `k` (0 = x, 1 = y, 2 = z).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Affine(pub [[f64; 4]; 4]);

impl Affine {
    /// One millimetre per voxel, RAS, origin at voxel (0, 0, 0).
    pub const IDENTITY: Self =
        Self([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]);

    /// Builds an affine from its columns: the three voxel steps in millimetres and the position of voxel (0, 0, 0).
    pub fn from_columns(steps_mm: [[f64; 3]; 3], origin_mm: [f64; 3]) -> Self {
        let mut rows = Self::IDENTITY.0;
        for row in 0..3 {
            for column in 0..3 {
                rows[row][column] = steps_mm[column][row];
            }
            rows[row][3] = origin_mm[row];
        }
        Self(rows)
    }

    /// An axis-aligned RAS affine with voxels of `spacing_mm` (z, y, x) and voxel (0, 0, 0) at the origin.
    pub fn from_spacing(spacing_mm: [f64; 3]) -> Self {
        let [z, y, x] = spacing_mm;
        Self::from_columns([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, z]], [0.0; 3])
    }

    /// The step in millimetres from one voxel to the next along index axis `axis` (0 = x, 1 = y, 2 = z).
    pub fn step_mm(&self, axis: usize) -> [f64; 3] {
        [self.0[0][axis], self.0[1][axis], self.0[2][axis]]
    }

    /// The position of voxel (0, 0, 0) in millimetres.
    pub fn origin_mm(&self) -> [f64; 3] {
        self.step_mm(3)
    }

    /// The voxel size in millimetres, **z, y, x**: the lengths of the columns.
    pub fn spacing_mm(&self) -> [f64; 3] {
        [2, 1, 0].map(|axis| self.step_mm(axis).iter().map(|v| v * v).sum::<f64>().sqrt())
    }

    /// The position in millimetres of the voxel index `(x, y, z)`, which may be fractional.
    pub fn apply(&self, index: [f64; 3]) -> [f64; 3] {
        [0, 1, 2].map(|row| {
            let r = &self.0[row];
            r[0] * index[0] + r[1] * index[1] + r[2] * index[2] + r[3]
        })
    }

    /// The volume of one voxel in mm³, negative for a left-handed grid.
    pub fn determinant(&self) -> f64 {
        determinant3(&self.linear())
    }

    /// Why this affine cannot place voxels in space: a number is not finite, the last row is wrong, or the steps
    /// do not span three dimensions. `None` when it can.
    pub fn defect(&self) -> Option<&'static str> {
        if self.0.iter().flatten().any(|v| !v.is_finite()) {
            return Some("is not finite");
        }
        if self.0[3] != [0.0, 0.0, 0.0, 1.0] {
            return Some("has a last row other than 0 0 0 1");
        }
        let edges: f64 = self.spacing_mm().iter().product();
        // Relative to the box the steps would span at right angles; f32 headers carry about 1e-7.
        let spans_space = edges.is_finite() && self.determinant().abs() > edges * 1e-6;
        (!spans_space).then_some("is singular")
    }

    /// The largest absolute difference of any entry, in millimetres (per voxel for the steps).
    pub fn max_difference(&self, other: &Self) -> f64 {
        self.0.iter().flatten().zip(other.0.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    /// The upper left 3×3 block, row-major.
    pub(crate) fn linear(&self) -> [[f64; 3]; 3] {
        [0, 1, 2].map(|row| [self.0[row][0], self.0[row][1], self.0[row][2]])
    }
}

pub(crate) fn determinant3(m: &[[f64; 3]; 3]) -> f64 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
}

/// The orthogonal matrix closest to `m` (the polar factor), by Newton's iteration `R ← (R + R⁻ᵀ) / 2`.
///
/// `m` must not be singular. A matrix that is orthogonal already comes back within rounding.
/// Source: Higham, "Computing the polar decomposition — with applications", SIAM J. Sci. Stat. Comput. 7 (1986).
pub(crate) fn closest_rotation(m: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let mut r = *m;
    for _ in 0..64 {
        let det = determinant3(&r);
        let mut next = [[0.0; 3]; 3];
        let mut change = 0.0_f64;
        for i in 0..3 {
            for j in 0..3 {
                let (a, b) = ((i + 1) % 3, (i + 2) % 3);
                let (c, d) = ((j + 1) % 3, (j + 2) % 3);
                // The cofactor matrix over the determinant is the inverse transpose.
                let inverse_transpose = (r[a][c] * r[b][d] - r[a][d] * r[b][c]) / det;
                next[i][j] = 0.5 * (r[i][j] + inverse_transpose);
                change = change.max((next[i][j] - r[i][j]).abs());
            }
        }
        r = next;
        if change < 1e-15 {
            break;
        }
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacing_is_z_y_x_while_columns_are_x_y_z() {
        let affine = Affine::from_spacing([3.0, 2.0, 0.5]);
        assert_eq!(affine.spacing_mm(), [3.0, 2.0, 0.5]);
        assert_eq!(affine.step_mm(0), [0.5, 0.0, 0.0]);
        assert_eq!(affine.apply([2.0, 1.0, 1.0]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn defects_are_named() {
        assert_eq!(Affine::IDENTITY.defect(), None);
        let mut flat = Affine::IDENTITY;
        flat.0[2][2] = 0.0;
        assert_eq!(flat.defect(), Some("is singular"));
        let mut nan = Affine::IDENTITY;
        nan.0[0][3] = f64::NAN;
        assert_eq!(nan.defect(), Some("is not finite"));
        let mut perspective = Affine::IDENTITY;
        perspective.0[3][0] = 0.5;
        assert_eq!(perspective.defect(), Some("has a last row other than 0 0 0 1"));
        let mut huge = Affine::IDENTITY;
        huge.0[0][0] = 1e300;
        huge.0[1][1] = 1e300;
        assert_eq!(huge.defect(), Some("is singular"));
        // Tiny voxels are no defect: the test is relative.
        assert_eq!(Affine::from_spacing([1e-6, 1e-6, 1e-6]).defect(), None);
    }

    #[test]
    fn the_polar_factor_of_a_sheared_rotation_is_a_rotation() {
        let m = [[0.9, -0.3, 0.1], [0.35, 1.1, -0.2], [0.0, 0.25, 0.95]];
        let r = closest_rotation(&m);
        for i in 0..3 {
            for j in 0..3 {
                let dot: f64 = (0..3).map(|k| r[i][k] * r[j][k]).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-14);
            }
        }
        // RᵀM must be symmetric for the polar factor.
        let product = |i: usize, j: usize| (0..3).map(|k| r[k][i] * m[k][j]).sum::<f64>();
        assert!((product(0, 1) - product(1, 0)).abs() < 1e-14);
        assert!((product(0, 2) - product(2, 0)).abs() < 1e-14);
        assert!((product(1, 2) - product(2, 1)).abs() < 1e-14);
    }
}
