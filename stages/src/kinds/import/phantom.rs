//! Synthetic cohorts, for trying a pipeline without data: volumes that behave like the hippocampus task, and images with
//! classes that behave like chest X-rays with and without pneumonia.
//!
//! A volume holds a bent, tapered body with an anterior and a posterior part, in a textured background with bodies of the
//! same brightness, under a bias field and noise. No intensity threshold separates it. Cases `2k-1` and `2k` are the
//! mirrored sides of one patient. Intensity scales differ between patients by orders of magnitude, as in the real task.
//! An image shows two dark lungs, with clouds in them in three cases of four, under an exposure of its own.
//! With an inspection at hand, grids, voxels of each label, classes and intensities are like those of the cases that it
//! measured.
//!
//! Only sums, products, quotients and square roots of `f64` are used, so the voxels are the same on every machine.

mod alike;
mod body;
pub(super) mod chest;
mod draw;
pub(super) mod likeness;
pub(super) mod observers;
mod planted;
mod tones;
pub(super) mod volumes;

use self::likeness::Likeness;
use crate::stage::ParamProblem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Size and seed of the synthetic cohort.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Phantom {
    /// Number of cases: 80 volumes, which are two by two of one patient, 800 images in place of an archive, or as many as
    /// the inspection that is wired to `like` has.
    pub cases: Option<usize>,
    /// Mean number of voxels along z, y and x, 1 mm each: [30, 38, 30], where patients differ by up to 2 voxels, or
    /// [1, 28, 28] for images, which are all alike. [1, 64, 64] makes flat images with label maps.
    pub shape: Option<[usize; 3]>,
    /// Another number gives another cohort.
    pub seed: u64,
    /// How many people draw each sound case besides the label map, `annotator_1` and so on: the borders of each are less exact
    /// than those of the one before, and those of every fourth case less exact still.
    pub annotators: usize,
    /// What is wrong with the cohort on purpose, besides its sound cases.
    pub planted: Planted,
}

/// Cases that a look at the data should find. Each is a patient of its own by its name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Planted {
    /// Copies of a case under another name: uncompressed, or in the training part and of a case of each part in turn.
    pub duplicates: usize,
    /// Copies that were rescaled, mirrored, given noise or shifted, in turn.
    pub near: usize,
    /// Cases with the label map of another case; of images with classes, copies in another class.
    pub labels: usize,
    /// Cases without a label, with a label on another grid, or with a voxel that is not a number, in turn; of images with
    /// classes, files that are cut off, and images of one value everywhere.
    pub defects: usize,
    /// Intensities are whole multiples of a number that the cases of a patient share, as if they were cut from one
    /// scan.
    pub scans: bool,
}

/// A cohort with nothing left open.
#[derive(Debug, Clone)]
pub(super) struct Cohort {
    cases: usize,
    shape: [usize; 3],
    seed: u64,
    annotators: usize,
    planted: Planted,
    like: Option<Arc<Likeness>>,
}

/// Below this a body has no room for two parts, and a lung none for a cloud.
const MIN_SIZE: usize = 16;
/// A cohort is a trial, not a data set.
const MAX_SIZE: usize = 256;
const MAX_CASES: usize = 100_000;

impl Cohort {
    fn volumes() -> Self {
        Self {
            cases: 80,
            shape: [30, 38, 30],
            seed: 0,
            annotators: 0,
            planted: Planted::default(),
            like: None,
        }
    }

    fn images() -> Self {
        Self { cases: 800, shape: [1, 28, 28], ..Self::volumes() }
    }

    /// Its cases in place of those that the parameters describe.
    pub(super) fn like(self, likeness: Likeness) -> Self {
        Self { cases: likeness.templates.len(), like: Some(Arc::new(likeness)), ..self }
    }
}

impl Phantom {
    /// With the sizes of volumes, or of `images`, where none are given.
    pub(super) fn cohort(&self, images: bool) -> Cohort {
        let usual = if images { Cohort::images() } else { Cohort::volumes() };
        Cohort {
            cases: self.cases.unwrap_or(usual.cases),
            shape: self.shape.unwrap_or(usual.shape),
            seed: self.seed,
            annotators: self.annotators,
            planted: self.planted.clone(),
            like: None,
        }
    }

    /// What cannot be made.
    pub(super) fn problems(&self, images: bool) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut problem = |message: String, help: &str| {
            problems.push(ParamProblem { parameter: "phantom", message, help: help.into() });
        };
        let Cohort { cases, shape, annotators, planted, .. } = self.cohort(images);
        if cases == 0 {
            problem("has no cases".into(), "use `cases: 40`");
        }
        if cases > MAX_CASES {
            problem(format!("has {cases} cases, more than {MAX_CASES}"), "use `cases: 400`");
        }
        let sizes = MIN_SIZE..=MAX_SIZE;
        let axes = if shape[0] == 1 { &shape[1..] } else { &shape[..] };
        if axes.iter().any(|size| !sizes.contains(size)) {
            let message = format!("shape {shape:?} is not within {MIN_SIZE} to {MAX_SIZE}");
            problem(message, "use `shape: [30, 38, 30]` (z, y, x), or [1, 64, 64] for flat images");
        }
        if images && (1..20).contains(&cases) {
            problem(format!("has {cases} images, too few for three parts"), "use `cases: 20` or more");
        }
        if images && shape[0] != 1 {
            let message = format!("shape {shape:?} has slices, but the images of an archive are flat");
            problem(message, "use `shape: [1, 28, 28]` (z, y, x)");
        }
        if annotators > observers::MAX_ANNOTATORS {
            let most = observers::MAX_ANNOTATORS;
            problem(format!("has {annotators} annotators"), &format!("use `annotators: 3`; at most {most}"));
        }
        if images && (annotators > 0 || planted.scans) {
            let help = "leave `annotators` and `scans` out, or `archive` for images with label maps";
            problem(
                "has what images with classes cannot have: people who draw, or steps of a scan".into(),
                help,
            );
        }
        problems
    }
}
