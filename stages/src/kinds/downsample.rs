//! Makes every case smaller: the input of the search for the smallest volumes on which a network is still right.

use super::prepare::{
    Clip, Figures, Intensity, Interpolate, Normalize, SPLIT, check_spacing, median, prepare_cases,
};
use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::table_file::seven_digits;
use crate::artifacts::{Case, CaseTable, Preparation, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub struct Downsample;

pub const CASES: In<CaseTable> = In::new("cases");
pub const VOLUMES: Out<Volumes> = Out::new("volumes");

#[derive(Debug, Default, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// How many times as large as the median voxel of the data set a voxel becomes along each axis; from 1. All
    /// volumes then have the same voxel size, which is recorded, so a model can be used on images of any other.
    pub factor: Option<f64>,
    /// Voxel size in millimetres in the order z, y, x, axes turned to RAS, instead of `factor`.
    pub spacing_mm: Option<[f64; 3]>,
    /// How values between voxels are found.
    pub interpolation: Interpolate,
    /// What intensities are clipped to before they are normalised; nothing unless given.
    pub clip: Option<Clip>,
    /// How intensities are brought to a common scale, after resampling and clipping.
    pub normalize: Normalize,
    /// Whose figures scale an image. With `dataset`, wire `split`: the test cases are left out of them then.
    pub figures: Figures,
}

impl Params {
    fn intensity(&self) -> Intensity {
        Intensity { clip: self.clip, normalize: self.normalize, figures: self.figures }
    }
}

impl Stage for Downsample {
    const KIND: &'static str = "downsample";
    const VERSION: u32 = 4;
    const SUMMARY: &'static str =
        "Turns every case to RAS, resamples it to larger voxels and normalises intensities.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems: Vec<ParamProblem> = check_spacing(params.spacing_mm).into_iter().collect();
        let mut problem = |message: String, help: &str| {
            problems.push(ParamProblem { parameter: "factor", message, help: help.into() });
        };
        match (params.factor, params.spacing_mm) {
            (None, None) => {
                problem("how far to go is not said".into(), "use `factor: 2`, or `spacing_mm: [2, 2, 2]`");
            }
            (Some(factor), Some(spacing)) => problem(
                format!("{factor} and `spacing_mm` {spacing:?} both say how far to go"),
                "leave one of the two out",
            ),
            (Some(factor), None) if !(factor.is_finite() && factor >= 1.0) => {
                problem(format!("{factor} does not make a volume smaller"), "use a number from 1, such as 2");
            }
            _ => {}
        }
        problems.extend(params.intensity().problems());
        problems
    }

    fn declare(params: &Params, ports: &mut Ports) {
        if params.figures == Figures::Dataset {
            ports.reads_optional(&SPLIT);
        }
        ports.reads(&CASES).writes(&VOLUMES).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        let spacing_mm = match params.factor {
            Some(factor) => larger_voxels(&table, factor)?,
            None => params.spacing_mm,
        };
        let preparation =
            Preparation { spacing_mm, interpolation: params.interpolation.into(), ..Preparation::NONE };
        prepare_cases(&table, preparation, Some(params.intensity()), &VOLUMES, context)
    }
}

/// `factor` times the median voxel size, z, y, x; `None` of no case.
fn larger_voxels(table: &CaseTable, factor: f64) -> Result<Option<[f64; 3]>, StageError> {
    let sizes: Vec<[f64; 3]> = table.cases.iter().map(upright_spacing).collect::<Result<_, _>>()?;
    Ok((!sizes.is_empty()).then(|| median(&sizes).map(|size| seven_digits(size * factor))))
}

/// The voxel size of a case, z, y, x, once its axes are turned to RAS.
fn upright_spacing(case: &Case) -> Result<[f64; 3], StageError> {
    let mut upright = [f64::NAN; 3];
    // The code names the stored axes x, y, z; sizes are stored z, y, x.
    for (letter, size) in case.orientation.chars().zip(case.spacing_mm.iter().rev()) {
        let axis = match letter {
            'S' | 'I' => 0,
            'A' | 'P' => 1,
            'R' | 'L' => 2,
            _ => continue,
        };
        upright[axis] = *size;
    }
    if upright.iter().any(|size| size.is_nan()) || case.orientation.len() != 3 {
        return Err(StageError::Data(format!(
            "case `{}` has `{}` for an orientation",
            case.id, case.orientation
        )));
    }
    Ok(upright)
}

#[cfg(test)]
mod tests;
