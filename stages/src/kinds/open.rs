//! The voxels of a case in the case table, wherever its files lie.

use crate::artifacts::Case;
use crate::context::StageContext;
use crate::error::StageError;
use ndarray::{Axis, concatenate};
use pipe_imaging::open::{self, Options};
use pipe_imaging::{Image, LabelMap};

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
        if let Some(finding) = pipe_imaging::check::check_grids(first.geometry(), next.geometry()) {
            return Err(StageError::Data(format!(
                "case `{}`: `{}` and `{}` are not the same grid: {finding}",
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
