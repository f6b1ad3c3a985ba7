//! How `crop` and `downsample` are told what to do with intensities, and the figures of a whole data set.

use super::{SPLIT, prepare_image};
use crate::artifacts::{Case, CaseTable, Preparation};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::open;
use crate::stage::ParamProblem;
use pipe_imaging::normalize::{Normalization, Region, Scale, percentile, statistics};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How intensities are brought to a common scale, channel by channel, after cropping and resampling.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// Mean 0 and standard deviation 1 over all voxels.
    #[default]
    Zscore,
    /// Mean 0 and standard deviation 1 over the voxels that are not 0; the others stay 0.
    ZscoreNonzero,
    /// From 0 to 1.
    MinMax,
    /// As stored.
    None,
}

/// What intensities are clipped to before they are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Clip {
    /// From the first number to the second, such as `[-160, 240]` for soft tissue in CT.
    Window([f64; 2]),
    /// The values of these two percentiles, from 0 to 100, such as `[0.5, 99.5]`.
    Percentiles([f64; 2]),
}

/// Whose figures (percentiles, mean, extremes) scale an image.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Figures {
    /// Its own.
    #[default]
    Image,
    /// Those of all cases together that the input `split` does not hold out for the test, for intensities with an absolute
    /// scale such as CT; of all cases where no split is wired. Validation cases count: all folds see the same volumes.
    /// Labels are not looked at. A case more or less changes them, so all cases are prepared again.
    Dataset,
}

/// What a stage is told about intensities.
#[derive(Debug, Clone, Copy)]
pub(in crate::kinds) struct Intensity {
    pub(in crate::kinds) clip: Option<Clip>,
    pub(in crate::kinds) normalize: Normalize,
    pub(in crate::kinds) figures: Figures,
}

/// How many voxels the figures of a data set are taken from, all cases together: memory does not grow with them.
const SAMPLES: usize = 1 << 20;

impl Intensity {
    /// What is wrong with the parameters.
    pub(in crate::kinds) fn problems(self) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut problem = |parameter, message: String, help: &str| {
            problems.push(ParamProblem { parameter, message, help: help.into() });
        };
        match self.clip {
            Some(Clip::Window([low, high])) if !(low.is_finite() && high.is_finite() && low < high) => {
                problem(
                    "clip",
                    format!("{low} to {high} is no window"),
                    "the second number must be the larger",
                );
            }
            Some(Clip::Percentiles([low, high])) if !(0.0 <= low && low < high && high <= 100.0) => problem(
                "clip",
                format!("{low} and {high} are no two percentiles"),
                "use two numbers from 0 to 100, the smaller first, such as [0.5, 99.5]",
            ),
            _ => {}
        }
        if self.figures == Figures::Dataset
            && matches!(self.normalize, Normalize::ZscoreNonzero | Normalize::None)
        {
            problem(
                "figures",
                "the figures of a data set scale every voxel of every image".into(),
                "use `normalize: zscore` or `normalize: min-max`, or leave `figures` out",
            );
        }
        problems
    }

    /// What every image goes through. Reads the images of all cases that are not held out where the figures are those of
    /// the data set; `how` says how they are cropped.
    pub(in crate::kinds) fn resolve(
        self,
        table: &CaseTable,
        how: &Preparation,
        context: &StageContext,
    ) -> Result<Normalization, StageError> {
        if self.figures == Figures::Dataset {
            return self.of_dataset(table, how, context);
        }
        Ok(self.of_image())
    }

    /// What every image goes through by its own figures.
    pub(in crate::kinds) fn of_image(self) -> Normalization {
        let then = match self.normalize {
            Normalize::Zscore => Scale::Zscore,
            Normalize::ZscoreNonzero => Scale::ZscoreNonzero,
            Normalize::MinMax => Scale::MinMax,
            Normalize::None => Scale::None,
        };
        match self.clip {
            None => then.into(),
            Some(Clip::Window([low, high])) => Normalization::Window { low, high, then },
            Some(Clip::Percentiles([low, high])) => Normalization::Percentiles { low, high, then },
        }
    }

    fn of_dataset(
        self,
        table: &CaseTable,
        how: &Preparation,
        context: &StageContext,
    ) -> Result<Normalization, StageError> {
        let measured = measured(table, context)?;
        let share = (SAMPLES / measured.len().max(1)).max(1);
        let cropped =
            Preparation { spacing_mm: None, normalization: Normalization::None, pad_to: None, ..*how };
        let samples = measured.par_iter().map(|case| sample(case, &cropped, share, context));
        let mut samples = samples.collect::<Result<Vec<_>, StageError>>()?.concat();
        // The order of summation does not depend on that of the cases.
        samples.sort_unstable_by(f32::total_cmp);
        let (low, high) = match self.clip {
            None => (f64::from(samples[0]), f64::from(samples[samples.len() - 1])),
            Some(Clip::Window([low, high])) => (low, high),
            Some(Clip::Percentiles([low, high])) => {
                (percentile(&mut samples, low).into(), percentile(&mut samples, high).into())
            }
        };
        samples.sort_unstable_by(f32::total_cmp);
        let clipped = || samples.iter().map(|&value| f64::from(value).clamp(low, high));
        let mean = clipped().sum::<f64>() / samples.len() as f64;
        let sd = (clipped().map(|value| (value - mean).powi(2)).sum::<f64>() / samples.len() as f64).sqrt();
        if !(low < high && sd > 0.0) {
            return Err(StageError::Data(format!(
                "all images together hold nothing but {mean} (clipped from {low} to {high}), so there is no scale"
            )));
        }
        context.fact("data set intensities", format!("{low} to {high}, mean {mean:.6}, sd {sd:.6}"));
        // Without `clip` nothing is clipped: the sample need not hold the extremes.
        let (from, to) =
            if self.clip.is_some() { (low, high) } else { (f64::from(f32::MIN), f64::from(f32::MAX)) };
        Ok(match self.normalize {
            Normalize::MinMax => Normalization::Fixed { low: from, high: to, mean: low, sd: high - low },
            _ => Normalization::Fixed { low: from, high: to, mean, sd },
        })
    }
}

/// The cases whose figures count: all but those of the test, where that is told.
fn measured<'a>(table: &'a CaseTable, context: &StageContext) -> Result<Vec<&'a Case>, StageError> {
    let Some(split) = context.read_optional(&SPLIT)? else {
        context.warn(
            "the figures of the data set include every case, also those that a split holds out for the test: wire \
             `split`, or leave `figures` out"
        );
        return Ok(table.cases.iter().collect());
    };
    let known: BTreeSet<&str> = split.rows.iter().map(|row| row.id.as_str()).collect();
    if let Some(case) = table.cases.iter().find(|case| !known.contains(case.id.as_str())) {
        return Err(StageError::Data(format!(
            "case `{}` is in no part of the split: give `split` and this stage the same `cases`",
            case.id
        )));
    }
    let test: BTreeSet<&str> = split.test().into_iter().collect();
    let measured: Vec<&Case> = table.cases.iter().filter(|case| !test.contains(case.id.as_str())).collect();
    if measured.is_empty() {
        return Err(StageError::Data(
            "the split holds every case out for the test: none is left to measure".into(),
        ));
    }
    context.fact("measured cases", measured.len());
    Ok(measured)
}

/// At most `share` voxels of a case, evenly spread over its channels and its region.
fn sample(
    case: &Case,
    cropped: &Preparation,
    share: usize,
    context: &StageContext,
) -> Result<Vec<f32>, StageError> {
    let source = open::image(case, context)?;
    let doing = || format!("measuring case `{}`", case.id);
    let image = prepare_image(&source, cropped).map_err(StageError::inner(doing()))?.image;
    statistics(&image, Region::All).map_err(StageError::inner(doing()))?;
    let voxels = image.as_slice();
    Ok(voxels.iter().step_by(voxels.len().div_ceil(share)).copied().collect())
}
