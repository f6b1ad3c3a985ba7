//! Which affine a header means, by nibabel's rules, and how one is stored.

use super::fault::Fault;
use super::raw::Raw;
use crate::affine::{Affine, determinant3};

/// Which header fields the affine was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffineSource {
    /// `srow_x`, `srow_y`, `srow_z`.
    Sform,
    /// The quaternion.
    Qform,
    /// Neither is set: `pixdim`, centred, x growing to the left, as nibabel assumes.
    Pixdim,
}

impl AffineSource {
    fn name(self) -> &'static str {
        match self {
            Self::Sform => "sform",
            Self::Qform => "qform",
            Self::Pixdim => "pixdim",
        }
    }
}

/// The sform if its code is set, else the qform if its code is set, else centred `pixdim`.
pub(super) fn of(raw: &Raw) -> Result<(Affine, AffineSource), Fault> {
    let (affine, source) = if raw.sform_code != 0 {
        (sform(raw), AffineSource::Sform)
    } else if raw.qform_code != 0 {
        (qform(raw)?, AffineSource::Qform)
    } else {
        (centred(raw), AffineSource::Pixdim)
    };
    match affine.defect() {
        None => Ok((affine, source)),
        Some(defect) => Err(Fault::Affine { source_name: source.name(), defect }),
    }
}

fn sform(raw: &Raw) -> Affine {
    let [x, y, z] = raw.srow;
    Affine([x, y, z, [0.0, 0.0, 0.0, 1.0]])
}

/// Voxel sizes x, y, z with nibabel's repairs: 0 becomes 1, a negative size its magnitude.
fn voxel_sizes(raw: &Raw) -> [f64; 3] {
    [1, 2, 3].map(|axis| match raw.pixdim[axis] {
        0.0 => 1.0,
        size => size.abs(),
    })
}

fn qform(raw: &Raw) -> Result<Affine, Fault> {
    let [b, c, d] = raw.quaternion;
    let a_squared = 1.0 - (b * b + c * c + d * d);
    let a = if a_squared.abs() < raw.version.quaternion_threshold() {
        0.0
    } else if a_squared > 0.0 {
        a_squared.sqrt()
    } else {
        // Also reached by NaN.
        return Err(Fault::Quaternion);
    };
    let scale = 2.0 / (a * a + b * b + c * c + d * d);
    let [x, y, z] = voxel_sizes(raw);
    // Anything but -1 is repaired to 1.
    let z = if raw.pixdim[0] == -1.0 { -z } else { z };
    let (sb, sc, sd) = (b * scale, c * scale, d * scale);
    let columns = [
        [(1.0 - (c * sc + d * sd)) * x, (b * sc + a * sd) * x, (b * sd - a * sc) * x],
        [(b * sc - a * sd) * y, (1.0 - (b * sb + d * sd)) * y, (c * sd + a * sb) * y],
        [(b * sd + a * sc) * z, (c * sd - a * sb) * z, (1.0 - (b * sb + c * sc)) * z],
    ];
    Ok(Affine::from_columns(columns, raw.offset_mm))
}

fn centred(raw: &Raw) -> Affine {
    let rank = raw.dim[0] as usize; // 1 to 7, checked before
    let [x, y, z] = voxel_sizes(raw);
    let sizes = [-x, if rank >= 2 { y } else { 1.0 }, if rank >= 3 { z } else { 1.0 }];
    let mut columns = [[0.0; 3]; 3];
    let mut origin = [0.0; 3];
    for axis in 0..3 {
        let length = if axis < rank { raw.dim[axis + 1] as f64 } else { 1.0 };
        columns[axis][axis] = sizes[axis];
        origin[axis] = -(length - 1.0) / 2.0 * sizes[axis];
    }
    Affine::from_columns(columns, origin)
}

/// A quaternion as NIfTI stores it.
pub(super) struct Qform {
    /// -1 for a left-handed grid, else 1; `pixdim[0]`.
    pub(super) qfac: f32,
    pub(super) bcd: [f32; 3],
}

/// The quaternion of an affine, or `None` when its steps are not at right angles (a qform cannot shear).
pub(super) fn quaternion(affine: &Affine) -> Option<Qform> {
    let [sz, sy, sx] = affine.spacing_mm();
    let mut m = affine.linear().map(|row| [row[0] / sx, row[1] / sy, row[2] / sz]);
    for i in 0..3 {
        for j in 0..i {
            let dot: f64 = m.iter().map(|row| row[i] * row[j]).sum();
            if dot.abs() > 1e-5 {
                return None;
            }
        }
    }
    let qfac = if determinant3(&m) < 0.0 { -1.0_f32 } else { 1.0 };
    for row in &mut m {
        row[2] *= f64::from(qfac);
    }
    // The largest of the four components is computed by a square root, the others from it: no cancellation.
    let squares = [
        1.0 + m[0][0] + m[1][1] + m[2][2],
        1.0 + m[0][0] - m[1][1] - m[2][2],
        1.0 - m[0][0] + m[1][1] - m[2][2],
        1.0 - m[0][0] - m[1][1] + m[2][2],
    ];
    let largest = (1..4).fold(0, |best, k| if squares[k] > squares[best] { k } else { best });
    let root = squares[largest].max(0.0).sqrt();
    let half = 0.5 / root;
    let (yz, xz, xy) = (m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]);
    let (pxy, pxz, pyz) = (m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]);
    let [a, b, c, d] = match largest {
        0 => [root / 2.0, yz * half, xz * half, xy * half],
        1 => [yz * half, root / 2.0, pxy * half, pxz * half],
        2 => [xz * half, pxy * half, root / 2.0, pyz * half],
        _ => [xy * half, pxz * half, pyz * half, root / 2.0],
    };
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    Some(Qform { qfac, bcd: [b, c, d].map(|v| (v * sign) as f32) })
}
