//! Brings every case upright, cuts out what is worth looking at, resamples and normalises it.

use super::prepare::{Intensity, SPLIT, check_spacing, prepare_cases};
use crate::artifact::{In, InOptional, Out, Ports, Resources};
use crate::artifacts::{CaseTable, Model, Preparation, Region, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use pipe_imaging::normalize::Normalization;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::prepare::{Clip, Figures, Interpolate, Normalize};

pub struct Crop;

pub const CASES: In<CaseTable> = In::new("cases");
/// A network that was trained before: cases are prepared as those that it saw, in place of any parameter.
pub const LIKE: InOptional<Model> = InOptional::new("like");
pub const VOLUMES: Out<Volumes> = Out::new("volumes");

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// What is kept of each image. Never decided by the label: at test time there is none, and a box around the
    /// label would give the answer away.
    pub region: Region,
    /// Added around the region on every side, in millimetres, as far as the image reaches. Only with
    /// `region: nonzero`.
    pub margin_mm: f64,
    /// Voxel size in millimetres in the order z, y, x, axes turned to RAS. Every case keeps its own unless given.
    /// Sizes are as close as whole numbers of voxels allow.
    pub spacing_mm: Option<[f64; 3]>,
    /// How values between voxels are found.
    pub interpolation: Interpolate,
    /// What intensities are clipped to before they are normalised; nothing unless given.
    pub clip: Option<Clip>,
    /// How intensities are brought to a common scale, after cropping, resampling and clipping.
    pub normalize: Normalize,
    /// Whose figures scale an image. With `dataset`, wire `split`: the test cases are left out of them then.
    pub figures: Figures,
    /// The least size in voxels (z, y, x) after resampling, such as the patch of a network: what is smaller gets 0 on both
    /// sides, after normalisation. Predictions come back without it.
    pub pad_to: Option<[usize; 3]>,
}

/// No axis is padded beyond this: more is a mistake, and would fill the memory.
const MAX_PADDED: usize = 2048;

impl Params {
    fn intensity(&self) -> Intensity {
        Intensity { clip: self.clip, normalize: self.normalize, figures: self.figures }
    }
}

impl Stage for Crop {
    const KIND: &'static str = "crop";
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "Turns every case to RAS, cuts out a region, resamples to a common voxel size and normalises intensities.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems: Vec<ParamProblem> = check_spacing(params.spacing_mm).into_iter().collect();
        if !(params.margin_mm.is_finite() && params.margin_mm >= 0.0) {
            problems.push(ParamProblem {
                parameter: "margin_mm",
                message: format!("{} is no margin", params.margin_mm),
                help: "use a number of millimetres from 0".into(),
            });
        }
        if params.margin_mm > 0.0 && params.region == Region::Whole {
            problems.push(ParamProblem {
                parameter: "margin_mm",
                message: format!("a margin of {} mm around the whole image is nothing", params.margin_mm),
                help: "leave `margin_mm` out, or use `region: nonzero`".into(),
            });
        }
        if let Some(size) =
            params.pad_to.filter(|size| size.iter().any(|axis| !(1..=MAX_PADDED).contains(axis)))
        {
            problems.push(ParamProblem {
                parameter: "pad_to",
                message: format!("{size:?} is not within 1 to {MAX_PADDED} voxels along each axis"),
                help: "use the least size in the order z, y, x, such as [32, 64, 64]".into(),
            });
        }
        problems.extend(params.intensity().problems());
        problems
    }

    fn declare(params: &Params, ports: &mut Ports) {
        if params.figures == Figures::Dataset {
            ports.reads_optional(&SPLIT);
        }
        ports.reads(&CASES).reads_optional(&LIKE).writes(&VOLUMES).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        if let Some(model) = context.read_optional(&LIKE)? {
            if *params != Params::default() {
                return Err(StageError::Data(
                    "`like` is wired and says how cases are prepared: leave every parameter out".into(),
                ));
            }
            return prepare_cases(&table, model.card.preparation, None, &VOLUMES, context);
        }
        let preparation = Preparation {
            region: params.region,
            margin_mm: params.margin_mm,
            spacing_mm: params.spacing_mm,
            interpolation: params.interpolation.into(),
            normalization: Normalization::None,
            pad_to: params.pad_to,
        };
        prepare_cases(&table, preparation, Some(params.intensity()), &VOLUMES, context)
    }
}

#[cfg(test)]
mod tests;
