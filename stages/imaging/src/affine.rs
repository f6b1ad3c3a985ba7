//! The map from voxel indices to millimetres, and the little linear algebra it needs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The smallest and the largest voxel of a body or of a piece of one, in mm along each axis: a tenth of a nanometre, and
/// a metre. What a header says beyond is a mistake, in a unit or in a program.
pub const VOXEL_BOUNDS_MM: [f64; 2] = [1e-7, 1e3];
/// How far from the origin a volume may begin, in mm along each axis: a kilometre.
pub const MAX_ORIGIN_MM: f64 = 1e6;

/// Why an affine cannot place voxels. Displays as what completes "the affine …".
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Defect {
    /// A number is NaN or infinite.
    NotFinite,
    /// The last row is not `0 0 0 1`.
    LastRow,
    /// Voxels (mm; z, y, x) outside of [`VOXEL_BOUNDS_MM`].
    VoxelSize { mm: [f64; 3] },
    /// The steps do not span three dimensions.
    Singular,
    /// Voxel (0, 0, 0) lies beyond [`MAX_ORIGIN_MM`] (mm; x, y, z).
    Origin { mm: [f64; 3] },
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite => write!(f, "is not finite"),
            Self::LastRow => write!(f, "has a last row other than 0 0 0 1"),
            Self::VoxelSize { mm: [z, y, x] } => {
                let [z, y, x] = [z, y, x].map(|size| Short(*size));
                let [least, most] = VOXEL_BOUNDS_MM.map(Short);
                write!(f, "has voxels of {z}×{y}×{x} mm (z×y×x), expected {least} to {most} mm")
            }
            Self::Singular => write!(f, "is singular"),
            Self::Origin { mm: [x, y, z] } => {
                let [x, y, z] = [x, y, z].map(|place| Short(*place));
                write!(
                    f,
                    "places the first voxel at {x}, {y}, {z} mm (x, y, z), expected at most {} mm off",
                    Short(MAX_ORIGIN_MM)
                )
            }
        }
    }
}

/// A number of any size in few characters.
pub(crate) struct Short(pub(crate) f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if self.0.is_finite() && size != 0.0 && !(1e-4..1e6).contains(&size) {
            // Six digits: what an f32 header holds.
            let text = format!("{:.6e}", self.0);
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            return write!(f, "{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'));
        }
        let text = format!("{:.6}", self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

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

    /// An axis-aligned affine with voxels of `spacing_mm` (z, y, x) whose index axes x, y, z grow in the directions of a
    /// code such as `LPS`, voxel (0, 0, 0) at the origin. `None` for a code that does not name each axis once.
    pub fn oriented(code: &str, spacing_mm: [f64; 3]) -> Option<Self> {
        let mut steps = [[0.0; 3]; 3];
        let mut taken = [false; 3];
        let letters: Vec<char> = code.chars().collect();
        let letters: [char; 3] = letters.try_into().ok()?;
        for (axis, letter) in letters.into_iter().enumerate() {
            let (row, sign) = match letter {
                'R' => (0, 1.0),
                'L' => (0, -1.0),
                'A' => (1, 1.0),
                'P' => (1, -1.0),
                'S' => (2, 1.0),
                'I' => (2, -1.0),
                _ => return None,
            };
            if std::mem::replace(&mut taken[row], true) {
                return None;
            }
            steps[axis][row] = sign * spacing_mm[2 - axis];
        }
        Some(Self::from_columns(steps, [0.0; 3]))
    }

    /// The affine of what knows no place in space, with voxels of `spacing_mm` (z, y, x): its columns run to the left and
    /// its rows to the back, as in ITK, so that a picture whose first row is its top is shown upright where anterior is up.
    pub fn of_picture(spacing_mm: [f64; 3]) -> Self {
        let [z, y, x] = spacing_mm;
        Self::from_columns([[-x, 0.0, 0.0], [0.0, -y, 0.0], [0.0, 0.0, z]], [0.0; 3])
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

    /// Why this affine cannot place voxels in space; `None` when it can.
    pub fn defect(&self) -> Option<Defect> {
        if self.0.iter().flatten().any(|v| !v.is_finite()) {
            return Some(Defect::NotFinite);
        }
        if self.0[3] != [0.0, 0.0, 0.0, 1.0] {
            return Some(Defect::LastRow);
        }
        let mm = self.spacing_mm();
        let [least, most] = VOXEL_BOUNDS_MM;
        if mm.iter().any(|size| !(least..=most).contains(size)) {
            return Some(Defect::VoxelSize { mm });
        }
        // Relative to the box the steps would span at right angles; f32 headers carry about 1e-7.
        if self.determinant().abs() <= mm.iter().product::<f64>() * 1e-6 {
            return Some(Defect::Singular);
        }
        let mm = self.origin_mm();
        mm.iter().any(|place| place.abs() > MAX_ORIGIN_MM).then_some(Defect::Origin { mm })
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
    fn a_code_and_voxel_sizes_make_an_affine() {
        for code in ["RAS", "LPS", "PIR", "SLA", "ILP"] {
            let affine = Affine::oriented(code, [3.0, 2.0, 0.5]).expect("each axis once");
            assert_eq!(crate::orient::Orientation::of(&affine).to_string(), code);
            assert_eq!(affine.spacing_mm(), [3.0, 2.0, 0.5]);
        }
        for code in ["", "RA", "RAL", "RAX", "RASS", "ras"] {
            assert_eq!(Affine::oriented(code, [1.0; 3]), None);
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut [[f64; 4]; 4]), expected: Option<&str>) {
        let mut affine = Affine::IDENTITY;
        change(&mut affine.0);
        assert_eq!(affine.defect().map(|defect| defect.to_string()).as_deref(), expected);
    }

    #[test]
    fn defects_are_named() {
        check(|_| (), None);
        check(|rows| rows[0][3] = f64::NAN, Some("is not finite"));
        check(|rows| rows[3][0] = 0.5, Some("has a last row other than 0 0 0 1"));
        check(
            |rows| rows[1] = [1.0, 0.0, 0.0, 0.0],
            Some("has voxels of 1×0×1.414214 mm (z×y×x), expected 1e-7 to 1000 mm"),
        );
        check(|rows| (rows[0][1], rows[1][0]) = (1.0, 1.0), Some("is singular"));
    }

    #[test]
    fn voxels_and_places_of_no_body_are_told() {
        let voxels = |mm: f64| move |rows: &mut [[f64; 4]; 4]| rows[2][2] = mm;
        check(voxels(0.0), Some("has voxels of 0×1×1 mm (z×y×x), expected 1e-7 to 1000 mm"));
        check(voxels(1e30), Some("has voxels of 1e30×1×1 mm (z×y×x), expected 1e-7 to 1000 mm"));
        check(voxels(1e-9), Some("has voxels of 1e-9×1×1 mm (z×y×x), expected 1e-7 to 1000 mm"));
        check(voxels(1e300), Some("has voxels of inf×1×1 mm (z×y×x), expected 1e-7 to 1000 mm"));
        // A nanometre of an electron microscope, and a scout as thick as the table is long.
        check(voxels(1e-6), None);
        check(voxels(1000.0), None);
        // A flipped axis is a direction, not a size.
        check(voxels(-2.0), None);
        check(
            |rows| rows[1][3] = -1e30,
            Some("places the first voxel at 0, -1e30, 0 mm (x, y, z), expected at most 1e6 mm off"),
        );
        check(|rows| rows[1][3] = -1e6, None);
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
