//! The voxels of a case in the case table, wherever its files lie.

use crate::artifacts::Case;
use crate::artifacts::table_file::seven_digits;
use crate::context::StageContext;
use crate::error::StageError;
use ndarray::{Axis, concatenate};
use pipe_imaging::check::{Finding, check_grids};
use pipe_imaging::open::{self, Options};
use pipe_imaging::{Geometry, Image, LabelMap};

/// Reads the image of a case, `[c, z, y, x]`. Several files are joined along the channels; all must have the grid
/// of the first.
pub(crate) fn image(case: &Case, context: &StageContext) -> Result<Image, StageError> {
    let read = |file: &crate::artifacts::FileRef| {
        let path = context.source(&file.digest)?;
        open::image(&path, Options::default())
            .map(|opened| opened.volume)
            .map_err(StageError::inner(format!("reading `{}` of case `{}`", file.path, case.id)))
    };
    let first = read(case.image())?;
    let mut rest = Vec::new();
    for file in &case.images[1..] {
        let next = read(file)?;
        if let Some(finding) = check_grids(first.geometry(), next.geometry()) {
            let (one, other) = (describe(first.geometry()), describe(next.geometry()));
            let apart = match finding {
                Finding::PlacementMismatch { distance_mm } => format!(", up to {distance_mm:.3} mm apart"),
                _ => String::new(),
            };
            return Err(StageError::Data(format!(
                "case `{}`: channel `{}` has {one} but channel `{}` has {other}{apart}; resample them to one grid",
                case.id,
                case.image().path,
                file.path
            )));
        }
        rest.push(next);
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let views: Vec<_> = std::iter::once(&first).chain(&rest).map(pipe_imaging::Volume::voxels).collect();
    let doing = || format!("joining the channels of case `{}`", case.id);
    let joined = concatenate(Axis(0), &views).map_err(StageError::inner(doing()))?;
    Image::new(joined, *first.geometry()).map_err(StageError::inner(doing()))
}

/// Reads the label map of a case, `[z, y, x]`; `None` when it has none.
pub(crate) fn label(case: &Case, context: &StageContext) -> Result<Option<LabelMap>, StageError> {
    let Some(file) = &case.label else { return Ok(None) };
    let path = context.source(&file.digest)?;
    let label = open::label(&path, Options::default())
        .map(|opened| opened.volume)
        .map_err(StageError::inner(format!("reading `{}` of case `{}`", file.path, case.id)))?;
    Ok(Some(label))
}

/// A grid in words.
pub(crate) fn describe(grid: &Geometry) -> String {
    let [z, y, x] = grid.spacing_mm().map(seven_digits);
    format!("{} voxels of {z}×{y}×{x} mm (z×y×x), {}", grid.shape, grid.orientation())
}
