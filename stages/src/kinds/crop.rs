//! Brings every case upright, cuts out what is worth looking at, resamples and normalises it.

use super::prepare::{check_spacing, prepare_cases};
use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::{CaseTable, Region, Volumes, VolumesInfo};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::prepare::Normalize;

pub struct Crop;

pub const CASES: In<CaseTable> = In::new("cases");
pub const VOLUMES: Out<Volumes> = Out::new("volumes");

#[derive(Debug, Default, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// What is kept of each image. Never decided by the label: at test time there is none, and a box around the
    /// label would give the answer away.
    pub region: Region,
    /// Added around the region on every side, in millimetres, as far as the image reaches. Only with
    /// `region: nonzero`.
    pub margin_mm: f64,
    /// Voxel size in millimetres in the order z, y, x, axes turned to RAS. Every case keeps its own unless given.
    /// Images are interpolated linearly without smoothing; a voxel gets the label whose linearly interpolated mask
    /// weighs most. Sizes are as close as whole numbers of voxels allow.
    pub spacing_mm: Option<[f64; 3]>,
    /// How intensities are brought to a common scale, after cropping and resampling.
    pub normalize: Normalize,
}

impl Stage for Crop {
    const KIND: &'static str = "crop";
    const VERSION: u32 = 1;
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
        problems
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&CASES).writes(&VOLUMES).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        let info = VolumesInfo {
            dataset: table.dataset.clone(),
            region: params.region,
            margin_mm: params.margin_mm,
            spacing_mm: params.spacing_mm,
            normalization: params.normalize.into(),
        };
        prepare_cases(&table, info, &VOLUMES, context)
    }
}

#[cfg(test)]
mod tests;
