//! The voxel grid under two label maps, and the part of it that a label needs.

use std::collections::BTreeMap;
use std::ops::Range;

use thiserror::Error;

/// Why label maps cannot be measured on a grid.
#[derive(Debug, Error, PartialEq)]
pub enum GridError {
    /// A label map of another size.
    #[error("the {which} has {found} voxels but a grid of {}×{}×{} (z×y×x) has {expected}", shape[0], shape[1], shape[2])]
    Length { which: &'static str, found: usize, expected: usize, shape: [usize; 3] },
    /// A spacing that is no length.
    #[error("the spacing along {axis} is {found} mm: it must be above 0 and finite")]
    Spacing { axis: char, found: f64 },
    /// More voxels than can be counted.
    #[error("a grid of {}×{}×{} (z×y×x) has more voxels than memory has addresses", shape[0], shape[1], shape[2])]
    Size { shape: [usize; 3] },
}

/// Shape and voxel size of a label map; axis order z, y, x with x fastest in memory.
///
/// A grid of one slice (z = 1) is an image: its surfaces are contours, measured in its plane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
}

impl Grid {
    /// A grid whose spacing is positive and whose voxels can be counted.
    pub fn new(shape: [usize; 3], spacing_mm: [f64; 3]) -> Result<Self, GridError> {
        for (axis, found) in ['z', 'y', 'x'].into_iter().zip(spacing_mm) {
            if !(found.is_finite() && found > 0.0) {
                return Err(GridError::Spacing { axis, found });
            }
        }
        // With a margin of one voxel on every side, which the surfaces need.
        let voxels = shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n.checked_add(2)?));
        match voxels {
            Some(_) => Ok(Self { shape, spacing_mm }),
            None => Err(GridError::Size { shape }),
        }
    }

    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    pub fn spacing_mm(&self) -> [f64; 3] {
        self.spacing_mm
    }

    pub fn voxels(&self) -> usize {
        self.shape.iter().product()
    }

    /// Volume of one voxel in millilitres.
    pub fn voxel_ml(&self) -> f64 {
        self.spacing_mm.iter().product::<f64>() / 1000.0
    }

    /// Length from corner to corner in mm, the extent of a single slice left out: no distance within is longer.
    pub fn diagonal_mm(&self) -> f64 {
        let sides = self.shape.iter().zip(self.spacing_mm).filter(|(n, _)| **n > 1);
        sides.map(|(&n, spacing)| (n as f64 * spacing).powi(2)).sum::<f64>().sqrt()
    }

    /// Fails when a label map is not of this size.
    pub(crate) fn check(&self, which: &'static str, labels: &[u8]) -> Result<(), GridError> {
        match self.voxels() {
            expected if expected == labels.len() => Ok(()),
            expected => Err(GridError::Length { which, found: labels.len(), expected, shape: self.shape }),
        }
    }
}

/// A box of voxels, half-open along z, y and x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    start: [usize; 3],
    end: [usize; 3],
}

impl Region {
    const EMPTY: Self = Self { start: [usize::MAX; 3], end: [0; 3] };

    fn include(&mut self, z: usize, y: usize, x: Range<usize>) {
        self.start = [self.start[0].min(z), self.start[1].min(y), self.start[2].min(x.start)];
        self.end = [self.end[0].max(z + 1), self.end[1].max(y + 1), self.end[2].max(x.end)];
    }

    pub(crate) fn shape(&self) -> [usize; 3] {
        std::array::from_fn(|axis| self.end[axis] - self.start[axis])
    }
}

/// The joint box of every label but background: the smallest that holds it in both maps. One pass over both.
pub(crate) fn joint_regions(reference: &[u8], prediction: &[u8], grid: &Grid) -> BTreeMap<u8, Region> {
    let mut regions = [Region::EMPTY; 256];
    let [_, ny, nx] = grid.shape;
    if nx == 0 {
        return BTreeMap::new();
    }
    let rows = reference.chunks_exact(nx).zip(prediction.chunks_exact(nx));
    for (row, (reference, prediction)) in rows.enumerate() {
        let (z, y) = (row / ny, row % ny);
        for labels in [reference, prediction] {
            runs(labels, |label, x| regions[usize::from(label)].include(z, y, x));
        }
    }
    let found = (1..=u8::MAX).zip(regions.into_iter().skip(1));
    found.filter(|(_, region)| *region != Region::EMPTY).collect()
}

/// Calls `found` for every run of equal labels that are not background.
fn runs(row: &[u8], mut found: impl FnMut(u8, Range<usize>)) {
    let mut x = 0;
    while x < row.len() {
        // Most of a volume is background: eight voxels at once.
        while row[x..].first_chunk::<8>() == Some(&[0; 8]) {
            x += 8;
        }
        let Some(&label) = row.get(x) else { return };
        let start = x;
        while row.get(x) == Some(&label) {
            x += 1;
        }
        if label != 0 {
            found(label, start..x);
        }
    }
}

/// One label as a mask of 0 and 1 within a box, with one empty voxel more on every side.
#[derive(Debug)]
pub(crate) struct Mask {
    pub(crate) voxels: Vec<u8>,
    /// The box with its margin.
    pub(crate) shape: [usize; 3],
}

impl Mask {
    pub(crate) fn of(labels: &[u8], label: u8, grid: &Grid, region: &Region) -> Self {
        let shape = region.shape().map(|n| n + 2);
        let mut voxels = vec![0; shape.iter().product()];
        let [_, ny, nx] = grid.shape;
        for z in region.start[0]..region.end[0] {
            for y in region.start[1]..region.end[1] {
                let from = (z * ny + y) * nx;
                let to = ((z - region.start[0] + 1) * shape[1] + y - region.start[1] + 1) * shape[2] + 1;
                let row = &labels[from + region.start[2]..from + region.end[2]];
                for (mask, &value) in voxels[to..].iter_mut().zip(row) {
                    *mask = u8::from(value == label);
                }
            }
        }
        Self { voxels, shape }
    }
}
