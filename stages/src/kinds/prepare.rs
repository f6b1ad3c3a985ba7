//! From source files to the grid that a network sees: what `crop` and `downsample` share. One case at a time.

use crate::artifact::{Artifact, InOptional, Out};
use crate::artifacts::table_file::seven_digits;
use crate::artifacts::{Case, CaseTable, FoldTable, Preparation, Region, VolumeRow, Volumes, VolumesInfo};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::listing::listing;
use crate::kinds::open;
use crate::stage::ParamProblem;
use pipe_cache::Digest;
use pipe_imaging::normalize::NormalizeError;
use pipe_imaging::resample::Interpolation;
use pipe_imaging::transform::{Transform, TransformError};
use pipe_imaging::{Geometry, Image, LabelMap, check, crop};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use thiserror::Error;

/// Which cases are held out, where figures are those of a data set.
pub(super) const SPLIT: InOptional<FoldTable> = InOptional::new("split");

/// How values between voxels are found. Labels take the nearest voxel with `nearest`, else the label whose linearly
/// interpolated mask weighs most. Where voxels are more than three times as long along one axis as along another, that
/// axis always takes the nearest slice.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolate {
    /// The nearest voxel.
    Nearest,
    /// Between the voxels around, without smoothing.
    #[default]
    Linear,
    /// The cubic spline through the voxels, clipped to the range of the image: what nnU-Net does.
    Cubic,
}

impl From<Interpolate> for Interpolation {
    fn from(interpolate: Interpolate) -> Self {
        match interpolate {
            Interpolate::Nearest => Self::Nearest,
            Interpolate::Linear => Self::Linear,
            Interpolate::Cubic => Self::Cubic,
        }
    }
}

/// An image as a network sees it, and the way back.
pub struct PreparedImage {
    /// On the target grid of `transform`.
    pub image: Image,
    pub transform: Transform,
    /// A region was asked for but the image is 0 everywhere, so it stayed whole.
    pub blank: bool,
}

/// An image that cannot be prepared.
#[derive(Debug, Error)]
pub enum PrepareError {
    #[error(transparent)]
    Transform(#[from] TransformError),
    #[error(transparent)]
    Normalize(#[from] NormalizeError),
}

/// Prepares an image, with or without label, in the way that a preparation says.
pub fn prepare_image(source: &Image, how: &Preparation) -> Result<PreparedImage, PrepareError> {
    let mut transform = Transform::new(source.geometry()).interpolated(how.interpolation).canonical();
    let mut blank = false;
    if how.region == Region::Nonzero {
        let upright = transform.apply_image(source)?;
        let grid = upright.geometry();
        let window = crop::nonzero_window(&upright).map(|window| window.grown_mm([how.margin_mm; 3], grid));
        match window.and_then(|window| window.clamped(grid.shape)) {
            Some(window) => transform = transform.crop(window)?,
            None => blank = true,
        }
    }
    if let Some(spacing_mm) = how.spacing_mm {
        transform = transform.resample_to_spacing(spacing_mm)?;
    }
    if let Some(shape) = how.pad_to {
        transform = transform.pad_to(shape)?;
    }
    let mut image = transform.apply_image_unpadded(source)?;
    how.normalization.apply(&mut image)?;
    if how.pad_to.is_some() {
        image = transform.pad_image(&image)?;
    }
    Ok(PreparedImage { image, transform, blank })
}

/// Prepares every case of `table` into the output `port`; `how.normalization` is what `intensity` comes to, where that is
/// given. Cases that were prepared in the same way before are taken from the item memo.
pub(super) fn prepare_cases(
    table: &CaseTable,
    mut how: Preparation,
    intensity: Option<Intensity>,
    port: &Out<Volumes>,
    context: &StageContext,
) -> Result<(), StageError> {
    if table.cases.is_empty() {
        return Err(StageError::Data("the case table holds no case".into()));
    }
    if let Some(intensity) = intensity {
        how.normalization = intensity.resolve(table, &how, context)?;
    }
    let root = context.output_dir(port)?;
    let done = AtomicUsize::new(0);
    let prepare = |case: &Case| {
        let key = json!({
            "id": case.id,
            "images": case.images.iter().map(|file| file.digest).collect::<Vec<Digest>>(),
            "label": case.label.as_ref().map(|file| file.digest),
            "preparation": how,
        });
        let made = context.memo(&key, root, |dir| Made::make(case, &how, dir, context))?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        context.progress(done, table.cases.len(), "cases", case.id.as_str());
        Ok(made)
    };
    let made: Vec<Made> = table.cases.par_iter().map(prepare).collect::<Result<_, StageError>>()?;
    report(table, &made, context);
    let rows = table.cases.iter().zip(made).map(|(case, made)| made.row(case)).collect();
    let info = VolumesInfo { dataset: table.dataset.clone(), preparation: how };
    Volumes::new(info, rows, root).store(root)
}

/// What the memo keeps of a prepared case beside its files. Depends on nothing but the memo's key.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    channels: usize,
    source: Geometry,
    target: Geometry,
    blank: bool,
}

impl Made {
    fn make(case: &Case, how: &Preparation, dir: &Path, context: &StageContext) -> Result<Self, StageError> {
        let source = open::image(case, context)?;
        let doing = || format!("preparing case `{}`", case.id);
        let PreparedImage { image, transform, blank } =
            prepare_image(&source, how).map_err(StageError::inner(doing()))?;
        let label = match open::label(case, context)? {
            Some(label) => {
                let label = on_grid_of(source.geometry(), label, case)?;
                Some(transform.apply_label(&label).map_err(StageError::inner(doing()))?)
            }
            None => None,
        };
        Volumes::write_case(dir, &case.id, &image, label.as_ref(), &transform)?;
        Ok(Self {
            channels: image.channels(),
            source: *transform.source(),
            target: *transform.target(),
            blank,
        })
    }

    fn row(self, case: &Case) -> VolumeRow {
        VolumeRow {
            id: case.id.clone(),
            patient: case.patient.clone(),
            channels: self.channels,
            shape: self.target.shape.0,
            spacing_mm: self.target.spacing_mm().map(seven_digits),
            source_shape: self.source.shape.0,
            source_spacing_mm: self.source.spacing_mm().map(seven_digits),
            label: case.label.clone(),
        }
    }
}

/// Gives a label map the grid of its image, for its voxels belong to those of the image: headers may differ in where
/// they say that both lie, of which an import warns.
fn on_grid_of(image: &Geometry, label: LabelMap, case: &Case) -> Result<LabelMap, StageError> {
    if is_another_grid(image, label.geometry()) {
        return Err(StageError::Data(format!(
            "case `{}`: image has {} but its label has {}",
            case.id,
            open::describe(image),
            open::describe(label.geometry())
        )));
    }
    let (voxels, _) = label.into_parts();
    LabelMap::new(voxels, *image)
        .map_err(StageError::inner(format!("placing the label of case `{}`", case.id)))
}

/// Whether voxels of the two grids cannot be paired by their indices.
fn is_another_grid(one: &Geometry, other: &Geometry) -> bool {
    check::check_grids(one, other).is_some_and(|finding| finding.severity() == check::Severity::Error)
}

fn report(table: &CaseTable, made: &[Made], context: &StageContext) {
    let shapes: Vec<[f64; 3]> = made.iter().map(|made| made.target.shape.0.map(|size| size as f64)).collect();
    let spacings: Vec<[f64; 3]> = made.iter().map(|made| made.target.spacing_mm()).collect();
    context.fact("cases", table.cases.len());
    context.fact("unlabelled", table.cases.iter().filter(|case| case.label.is_none()).count());
    context.fact("median shape", median(&shapes).to_vec());
    context.fact("median spacing mm", median(&spacings).map(seven_digits).to_vec());
    let pairs = table.cases.iter().zip(made);
    let blank: Vec<String> = pairs.filter(|(_, made)| made.blank).map(|(case, _)| case.id.clone()).collect();
    if !blank.is_empty() {
        context.warn(listing(
            ["image is 0 everywhere and stays whole", "images are 0 everywhere and stay whole"],
            &blank,
        ));
    }
}

/// The median along each axis; of an even number the mean of the middle two. Not of nothing.
pub(super) fn median(values: &[[f64; 3]]) -> [f64; 3] {
    [0, 1, 2].map(|axis| {
        let mut sorted: Vec<f64> = values.iter().map(|value| value[axis]).collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        f64::midpoint(low, high)
    })
}

/// What is wrong with a voxel size.
pub(super) fn check_spacing(spacing_mm: Option<[f64; 3]>) -> Option<ParamProblem> {
    let spacing = spacing_mm.filter(|sizes| !sizes.iter().all(|size| size.is_finite() && *size > 0.0))?;
    Some(ParamProblem {
        parameter: "spacing_mm",
        message: format!("{spacing:?} is no voxel size"),
        help: "use three positive numbers in the order z, y, x, such as [1, 1, 1]".into(),
    })
}

mod intensity;

pub(super) use self::intensity::Intensity;
pub use self::intensity::{Clip, Figures, Normalize};

#[cfg(test)]
pub(super) mod cohort;
#[cfg(test)]
mod tests;
