//! Makes a synthetic cohort and reads it as if it had been there. What its cases show is drawn in `phantom`.

use super::phantom::likeness::Likeness;
use super::phantom::{observers, volumes};
use super::source::{list, read_layout};
use super::{DATASET, LIKE, Params, archive, finish};
use crate::context::StageContext;
use crate::error::StageError;

pub(super) fn import(params: &Params, context: &StageContext) -> Result<(), StageError> {
    let phantom = params.phantom.clone().unwrap_or_default();
    let like = context.read_optional(&LIKE)?;
    let like = like.map(|inspection| Likeness::of(&inspection, phantom.cases)).transpose()?;
    let root = context.output_dir(&DATASET)?;
    let mut names = params.classes.clone();
    let mut cohort = phantom.cohort(params.archive.is_some());
    let mut classified = params.archive.is_some();
    let mut images_only = false;
    if let Some(like) = like {
        refuse(params, &like)?;
        names.clone_from(&like.classes);
        classified = like.is_classified();
        images_only = like.labels.is_empty();
        cohort = cohort.like(like);
    }
    if classified {
        let (layout, files) = archive::pretend(&cohort, &names, root)?;
        return finish(params, layout, &files, context);
    }
    volumes::write(&cohort, root)?;
    let files = list(root, phantom.annotators)?;
    let mut layout = read_layout(params, &files)?;
    layout.images_only = images_only;
    observers::attach(phantom.annotators, &mut layout, &files);
    volumes::attach(&cohort, &mut layout);
    finish(params, layout, &files, context)
}

/// Parameters that say something else than the inspection.
fn refuse(params: &Params, like: &Likeness) -> Result<(), StageError> {
    let phantom = params.phantom.clone().unwrap_or_default();
    let said = [
        ("phantom.shape", phantom.shape.is_some()),
        ("archive", params.archive.is_some()),
        ("classes", !params.classes.is_empty()),
        ("patient", params.patient.is_some()),
    ];
    if let Some((name, _)) = said.iter().find(|(_, said)| *said) {
        return Err(StageError::Data(format!(
            "both `{name}` and the inspection that is wired to `like` say what the cases are: leave one of the two out"
        )));
    }
    let drawn = phantom.annotators > 0 || phantom.planted.scans;
    if like.is_classified() && drawn {
        return Err(StageError::Data(
            "the inspection that is wired to `like` is of images with classes, which have no people who draw and no steps \
             of a scan: leave `annotators` and `scans` out"
                .into(),
        ));
    }
    if like.labels.is_empty() && phantom.annotators > 0 {
        return Err(StageError::Data(
            "the inspection that is wired to `like` knows no label that `annotators` could draw".into(),
        ));
    }
    Ok(())
}
