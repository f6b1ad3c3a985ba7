//! The parameters of the stage as written.

use super::scoring::Scoring;
use super::words;
use crate::kinds::inference::{DeviceName, Method};
use crate::stage::ParamProblem;
use pipe_metrics::bootstrap::Bootstrap;
use pipe_metrics::lesions::{Connectivity, LesionRule};
use pipe_metrics::segmentation::{Absent, Metric, OneEmpty};
use pipe_metrics::surface::Definition;
use pipe_onnx::{Blend, Provider, Tiling};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Which cases are predicted.
    pub part: EvaluatedPart,
    /// Only the validation cases of this fold; with `part: validation`.
    pub fold: Option<usize>,
    /// Also predict every mirrored form of an image and average the logits: 4 (2D) or 8 (3D) times the work.
    pub mirror: bool,
    /// Share of a patch that its neighbour covers too, from 0 to below 1, where an image is larger than the patch.
    pub overlap: f64,
    /// Also score every member of an ensemble by itself, and say with its interval how much better the ensemble is than
    /// the mean of its members.
    pub members: bool,
    /// How much a voxel of a patch counts where patches overlap.
    #[schemars(schema_with = "words::blend")]
    pub blend: Blend,
    /// Whose sliding window: `nnunet` spaces patches evenly, `monai` by a fixed step; their Gaussians differ by half a voxel
    /// and at the border. Take the one of the program that the network is compared with.
    #[schemars(schema_with = "words::tiling")]
    pub tiling: Tiling,
    /// Patches in one run of a network; as many as suit the device when it is left out.
    pub batch: Option<NonZeroUsize>,
    /// What networks run on.
    pub device: DeviceName,
    /// What is measured, in the order of the tables.
    #[schemars(schema_with = "words::metrics")]
    pub metrics: Vec<Metric>,
    /// Whose surface distances: `deepmind` (surface-distance 0.1; its NSD ranks the Medical Segmentation Decathlon),
    /// `monai` (MONAI 1.6) or `medpy` (`MedPy` 0.5). They differ.
    #[schemars(schema_with = "words::definition")]
    pub definition: Definition,
    /// How far apart surfaces may be in mm and still agree, for `nsd`.
    pub tolerance_mm: f64,
    /// The same by name of a label or group, where it has its own.
    pub tolerances_mm: BTreeMap<String, f64>,
    /// Labels that are also scored as one, e.g. `{ whole: [Anterior, Posterior] }`.
    pub groups: BTreeMap<String, Vec<String>>,
    /// The distance where only one map has the label: `worst` (the diagonal of the volume), `infinite`, `undefined` (left out
    /// and counted) or `library` (whatever the library of `definition` gives, also where neither map has the label).
    #[schemars(schema_with = "words::empty")]
    pub empty: OneEmpty,
    /// The value where neither map has the label: `undefined` (left out and counted) or `perfect` (shares 1, distances 0).
    #[schemars(schema_with = "words::absent")]
    pub absent: Absent,
    /// Which voxels are one lesion: `26`, those that touch by a face, an edge or a corner, or `6`, by a face.
    #[schemars(schema_with = "words::connectivity")]
    pub connectivity: Connectivity,
    /// The share of a lesion that must be covered for it to be found, from 0 (one voxel is enough) to 1.
    pub lesion_overlap: f64,
    /// The confidence of intervals.
    pub confidence: f64,
    /// Bootstrap samples of patients for intervals and comparisons.
    pub resamples: usize,
}

impl Default for Params {
    fn default() -> Self {
        let Scoring {
            metrics,
            definition,
            tolerance_mm,
            tolerances_mm,
            groups,
            empty,
            absent,
            lesions,
            bootstrap,
        } = Scoring::default();
        let method = Method::default();
        Self {
            part: EvaluatedPart::Test,
            fold: None,
            mirror: false,
            overlap: method.overlap,
            members: false,
            blend: method.blend,
            tiling: method.tiling,
            batch: None,
            device: DeviceName::default(),
            metrics,
            definition,
            tolerance_mm,
            tolerances_mm,
            groups,
            empty,
            absent,
            connectivity: lesions.connectivity,
            lesion_overlap: lesions.overlap,
            confidence: bootstrap.level,
            resamples: bootstrap.resamples,
        }
    }
}

impl Params {
    pub(super) fn method(&self, provider: Provider) -> Method {
        let Self { mirror, overlap, blend, tiling, batch, .. } = *self;
        Method { mirror, overlap, blend, tiling, batch, provider }
    }

    pub(super) fn scoring(&self) -> Scoring {
        Scoring {
            metrics: self.metrics.clone(),
            definition: self.definition,
            tolerance_mm: self.tolerance_mm,
            tolerances_mm: self.tolerances_mm.clone(),
            groups: self.groups.clone(),
            empty: self.empty,
            absent: self.absent,
            lesions: LesionRule { connectivity: self.connectivity, overlap: self.lesion_overlap },
            bootstrap: Bootstrap {
                resamples: self.resamples,
                level: self.confidence,
                ..Bootstrap::default()
            },
        }
    }

    /// What is wrong with the values beyond their types.
    pub(super) fn check(&self) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        problems.extend(self.part.check_fold(self.fold));
        if !(0.0..1.0).contains(&self.overlap) {
            problems.push(ParamProblem {
                parameter: "overlap",
                message: format!("{} is no share of a patch", self.overlap),
                help: "use a number from 0 to below 1, such as 0.5".into(),
            });
        }
        problems.extend(self.scoring().check());
        problems
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EvaluatedPart {
    /// The test cases, by every member.
    Test,
    /// The validation cases of the folds that members left out in training, each only by members that left it out.
    Validation,
    /// Both.
    All,
}

impl EvaluatedPart {
    /// What is wrong with a fold beside the part.
    pub(crate) fn check_fold(self, fold: Option<usize>) -> Option<ParamProblem> {
        let fold = fold.filter(|_| self != Self::Validation)?;
        Some(ParamProblem {
            parameter: "fold",
            message: format!("fold {fold} has no meaning with `part: {}`", self.name()),
            help: "remove it, or use `part: validation`".into(),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Validation => "validation",
            Self::All => "all",
        }
    }
}
