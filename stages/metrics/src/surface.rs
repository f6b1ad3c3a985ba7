//! Distances between the surfaces of a reference and a prediction, under named definitions.
//!
//! Libraries agree on neither the surface nor the figures; a number without the name of its definition says little.
//!
//! | | `deepmind` | `monai` | `medpy` |
//! |---|---|---|---|
//! | surface | triangles between voxel centres, with their areas | voxels with a face outside of the mask | as `monai` |
//! | HD95 | greater of the two directed percentiles, by area | greater of the two directed percentiles | percentile of both lists together |
//! | ASSD | mean over both surfaces, by area | mean over both lists | mean over both lists |
//! | NSD | share of the area within the tolerance | share of the voxels within the tolerance | not defined |
//!
//! `deepmind` is the package surface-distance 0.1, by whose NSD the Medical Segmentation Decathlon ranks, `monai` is MONAI
//! 1.6, `medpy` is `MedPy` 0.5. The first gives two directed averages and no ASSD: both are here, and the ASSD follows
//! from them. What is outside of the image counts as background everywhere.
//!
//! On a grid of one slice surfaces are contours and areas are lengths.

mod surfels;
mod voxels;

use serde::{Deserialize, Serialize};

use crate::distance::squared_distances;
use crate::grid::{Grid, GridError, Mask, Region, joint_regions};
use crate::summary::quantile;

/// Whose surfaces and figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Definition {
    /// surface-distance 0.1.
    Deepmind,
    /// MONAI 1.6.
    Monai,
    /// `MedPy` 0.5.
    Medpy,
}

impl Definition {
    pub const ALL: [Self; 3] = [Self::Deepmind, Self::Monai, Self::Medpy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Deepmind => "deepmind",
            Self::Monai => "monai",
            Self::Medpy => "medpy",
        }
    }
}

/// The points of a surface, as positions in a box.
struct Sites {
    /// Ascending.
    points: Vec<usize>,
    /// The area that each point stands for.
    areas: Vec<f64>,
    /// Not 0 at each point.
    marked: Vec<u8>,
    shape: [usize; 3],
}

/// How far a point of one surface is from the other surface.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    distance_mm: f64,
    area: f64,
}

/// The distances between two surfaces that both exist.
#[derive(Debug, Clone)]
pub struct Surfaces {
    definition: Definition,
    /// From the reference to the prediction, ascending.
    reference: Vec<Sample>,
    /// From the prediction to the reference, ascending.
    prediction: Vec<Sample>,
}

impl Surfaces {
    /// Measures one label. `None` where a map does not have it: there is no distance to nothing;
    /// [`crate::segmentation`] has rules for that.
    pub fn between(
        reference: &[u8],
        prediction: &[u8],
        label: u8,
        grid: &Grid,
        definition: Definition,
    ) -> Result<Option<Self>, GridError> {
        grid.check("reference", reference)?;
        grid.check("prediction", prediction)?;
        let regions = joint_regions(reference, prediction, grid);
        let measure = |region| Self::within(reference, prediction, label, grid, region, definition);
        Ok(regions.get(&label).and_then(measure))
    }

    /// Measures one label of maps that fit the grid, within its joint box.
    pub(crate) fn within(
        reference: &[u8],
        prediction: &[u8],
        label: u8,
        grid: &Grid,
        region: &Region,
        definition: Definition,
    ) -> Option<Self> {
        let sites = |labels| {
            let mask = Mask::of(labels, label, grid, region);
            match definition {
                Definition::Deepmind => surfels::sites(&mask, grid),
                Definition::Monai | Definition::Medpy => voxels::sites(&mask, grid),
            }
        };
        let (reference, prediction) = (sites(reference), sites(prediction));
        if reference.points.is_empty() || prediction.points.is_empty() {
            return None;
        }
        Some(Self {
            definition,
            reference: directed(&reference, &prediction, grid),
            prediction: directed(&prediction, &reference, grid),
        })
    }

    /// Hausdorff distance in mm: the longest way from any point of one surface to the other.
    pub fn hd(&self) -> f64 {
        longest(&self.reference).max(longest(&self.prediction))
    }

    /// Robust Hausdorff distance in mm; `share` is 0.95 for the HD95. See the table of the module.
    ///
    /// Panics when `share` is not in 0 to 1.
    pub fn robust_hd(&self, share: f64) -> f64 {
        let distances = |samples: &[Sample]| samples.iter().map(|s| s.distance_mm).collect::<Vec<f64>>();
        match self.definition {
            Definition::Deepmind => {
                assert!((0.0..=1.0).contains(&share), "share {share} is not in 0 to 1");
                percentile_by_area(&self.reference, share).max(percentile_by_area(&self.prediction, share))
            }
            Definition::Monai => {
                let directed = |samples| quantile(&distances(samples), share);
                directed(&self.reference).max(directed(&self.prediction))
            }
            Definition::Medpy => {
                let mut together = distances(&self.reference);
                together.extend(distances(&self.prediction));
                together.sort_unstable_by(f64::total_cmp);
                quantile(&together, share)
            }
        }
    }

    /// Average symmetric surface distance in mm: the mean over both surfaces together, by area.
    pub fn assd(&self) -> f64 {
        let (way, area) = (weigh(&self.reference), weigh(&self.prediction));
        (way.0 + area.0) / (way.1 + area.1)
    }

    /// Mean distance in mm from the reference's surface to the prediction's, by area: great where something was missed.
    pub fn asd_from_reference(&self) -> f64 {
        let (way, area) = weigh(&self.reference);
        way / area
    }

    /// Mean distance in mm from the prediction's surface to the reference's, by area: great where too much was found.
    pub fn asd_from_prediction(&self) -> f64 {
        let (way, area) = weigh(&self.prediction);
        way / area
    }

    /// Normalised surface distance (surface Dice), 0 to 1: the share of both surfaces that is within the tolerance of the
    /// other. `None` where the definition knows none.
    pub fn nsd(&self, tolerance_mm: f64) -> Option<f64> {
        if self.definition == Definition::Medpy {
            return None;
        }
        let near = |samples: &[Sample]| {
            let count = samples.partition_point(|sample| sample.distance_mm <= tolerance_mm);
            samples[..count].iter().map(|sample| sample.area).sum::<f64>()
        };
        let all = weigh(&self.reference).1 + weigh(&self.prediction).1;
        Some((near(&self.reference) + near(&self.prediction)) / all)
    }
}

/// The distances from every point to the nearest of the others, ascending.
fn directed(from: &Sites, to: &Sites, grid: &Grid) -> Vec<Sample> {
    let squared = squared_distances(&to.marked, to.shape, grid.spacing_mm());
    let measure = |(&point, &area): (&usize, &f64)| Sample { distance_mm: squared[point].sqrt(), area };
    let mut samples: Vec<Sample> = from.points.iter().zip(&from.areas).map(measure).collect();
    samples.sort_unstable_by(|a, b| {
        a.distance_mm.total_cmp(&b.distance_mm).then_with(|| a.area.total_cmp(&b.area))
    });
    samples
}

fn longest(samples: &[Sample]) -> f64 {
    samples.last().map_or(0.0, |sample| sample.distance_mm)
}

/// The sum of distances times area, and of areas.
fn weigh(samples: &[Sample]) -> (f64, f64) {
    let way = samples.iter().map(|sample| sample.distance_mm * sample.area).sum();
    (way, samples.iter().map(|sample| sample.area).sum())
}

/// The distance that at least this share of the area does not exceed, without interpolation.
fn percentile_by_area(samples: &[Sample], share: f64) -> f64 {
    let all = weigh(samples).1;
    let mut sum = 0.0;
    for sample in samples {
        sum += sample.area;
        if sum / all >= share {
            return sample.distance_mm;
        }
    }
    longest(samples)
}
