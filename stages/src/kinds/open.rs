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
            .map(|opened| (file.path.clone(), opened.volume))
            .map_err(StageError::inner(format!("reading `{}` of case `{}`", file.path, case.id)))
    };
    join(&case.id, case.images.iter().map(read).collect::<Result<Vec<_>, StageError>>()?)
}

/// Joins the images of a case, each with the name of its file, along the channels.
pub(crate) fn join(id: &str, parts: Vec<(String, Image)>) -> Result<Image, StageError> {
    let Some((first_path, first)) = parts.first() else {
        return Err(StageError::Internal(format!("case `{id}` without an image")));
    };
    for (path, next) in &parts[1..] {
        if let Some(finding) = check_grids(first.geometry(), next.geometry()) {
            let (one, other) = (describe(first.geometry()), describe(next.geometry()));
            let apart = match finding {
                Finding::PlacementMismatch { distance_mm } => format!(", up to {distance_mm:.3} mm apart"),
                _ => String::new(),
            };
            return Err(StageError::Data(format!(
                "case `{id}`: channel `{first_path}` has {one} but channel `{path}` has {other}{apart}; resample them to \
                 one grid",
            )));
        }
    }
    if parts.len() == 1 {
        return Ok(parts.into_iter().map(|(_, image)| image).next().expect("there is one"));
    }
    let views: Vec<_> = parts.iter().map(|(_, image)| image.voxels()).collect();
    let doing = || format!("joining the channels of case `{id}`");
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
