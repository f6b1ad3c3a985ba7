//! Connected components of one label, and how many of them the prediction found: the count that a reader of images makes.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::grid::{Grid, GridError, Mask, Region, joint_regions};

/// When two voxels belong to one lesion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connectivity {
    /// They share a face (4 neighbours within a single slice).
    #[serde(rename = "6")]
    Faces,
    /// They share a face, an edge or a corner (8 neighbours within a single slice).
    #[serde(rename = "26")]
    Corners,
}

/// What a lesion is and when it counts as found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LesionRule {
    pub connectivity: Connectivity,
    /// The share of a lesion's voxels that the other map must cover, 0 to 1; 0 asks for one voxel.
    pub overlap: f64,
}

impl Default for LesionRule {
    fn default() -> Self {
        Self { connectivity: Connectivity::Corners, overlap: 0.0 }
    }
}

/// Lesions of the reference that were found and missed, and of the prediction that are true and false.
///
/// A lesion of the reference is found when the prediction covers enough of it, in however many pieces; one of the
/// prediction is true when the reference covers enough of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lesions {
    pub found: u64,
    pub missed: u64,
    pub true_predicted: u64,
    pub false_predicted: u64,
}

impl Lesions {
    /// Counts the lesions of one label.
    pub fn between(
        reference: &[u8],
        prediction: &[u8],
        label: u8,
        grid: &Grid,
        rule: &LesionRule,
    ) -> Result<Self, GridError> {
        grid.check("reference", reference)?;
        grid.check("prediction", prediction)?;
        let regions = joint_regions(reference, prediction, grid);
        let count = |region| Self::within(reference, prediction, label, grid, region, rule);
        Ok(regions.get(&label).map_or_else(Self::default, count))
    }

    /// Counts the lesions of one label of maps that fit the grid, within its joint box.
    pub(crate) fn within(
        reference: &[u8],
        prediction: &[u8],
        label: u8,
        grid: &Grid,
        region: &Region,
        rule: &LesionRule,
    ) -> Self {
        let [reference, prediction] =
            [reference, prediction].map(|labels| Mask::of(labels, label, grid, region));
        let (found, missed) = covered(&reference, &prediction, rule);
        let (true_predicted, false_predicted) = covered(&prediction, &reference, rule);
        Self { found, missed, true_predicted, false_predicted }
    }

    /// Share of the reference's lesions that were found; NaN when it has none.
    pub fn recall(&self) -> f64 {
        share(self.found, self.missed)
    }

    /// Share of the prediction's lesions that are true; NaN when it has none.
    pub fn precision(&self) -> f64 {
        share(self.true_predicted, self.false_predicted)
    }

    /// Harmonic mean of [`recall`](Self::recall) and [`precision`](Self::precision): 0 when only one map has lesions, NaN
    /// when neither has.
    pub fn f1(&self) -> f64 {
        let (recall, precision) = (self.recall(), self.precision());
        if recall.is_nan() && precision.is_nan() {
            f64::NAN
        } else if self.found == 0 || self.true_predicted == 0 {
            0.0
        } else {
            2.0 * recall * precision / (recall + precision)
        }
    }
}

impl AddAssign for Lesions {
    fn add_assign(&mut self, other: Self) {
        self.found += other.found;
        self.missed += other.missed;
        self.true_predicted += other.true_predicted;
        self.false_predicted += other.false_predicted;
    }
}

fn share(yes: u64, no: u64) -> f64 {
    if yes + no == 0 { f64::NAN } else { yes as f64 / (yes + no) as f64 }
}

/// How many components of `mask` the other covers enough of, and how many it does not.
fn covered(mask: &Mask, other: &Mask, rule: &LesionRule) -> (u64, u64) {
    let steps = steps(mask.shape, rule.connectivity);
    let mut left = mask.voxels.clone();
    let (mut found, mut missed) = (0, 0);
    let mut open = Vec::new();
    for seed in 0..left.len() {
        if left[seed] == 0 {
            continue;
        }
        left[seed] = 0;
        open.push(seed);
        let (mut size, mut both) = (0_u64, 0_u64);
        while let Some(at) = open.pop() {
            size += 1;
            both += u64::from(other.voxels[at]);
            for step in &steps {
                // The margin of the mask is empty: no step leaves the box.
                let next = at.wrapping_add_signed(*step);
                if left[next] != 0 {
                    left[next] = 0;
                    open.push(next);
                }
            }
        }
        if both > 0 && both as f64 >= rule.overlap * size as f64 {
            found += 1;
        } else {
            missed += 1;
        }
    }
    (found, missed)
}

/// From a voxel to its neighbours.
fn steps([_, ny, nx]: [usize; 3], connectivity: Connectivity) -> Vec<isize> {
    let all = (0..27_isize).map(|step| [step / 9 - 1, step / 3 % 3 - 1, step % 3 - 1]);
    let wanted = all.filter(|step| {
        let axes = step.iter().filter(|along| **along != 0).count();
        match connectivity {
            Connectivity::Faces => axes == 1,
            Connectivity::Corners => axes > 0,
        }
    });
    wanted.map(|[z, y, x]| (z * ny as isize + y) * nx as isize + x).collect()
}
