//! The label maps of one case, compared and made into one. Memoised by their content.

use super::{Label, Params};
use crate::artifacts::table_file::seven_digits;
use crate::artifacts::{AnnotatorRow, Case, DatasetInfo, PairRow};
use crate::context::StageContext;
use crate::error::StageError;
use pipe_cache::Digest;
use pipe_imaging::open::{self, Options};
use pipe_imaging::{Geometry, Image, LabelMap, check, digest, nifti};
use pipe_metrics::agreement::{MAX_RATERS, Staple, disagreement, kappa, majority, staple};
use pipe_metrics::{confusion::Confusion, overlap};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const DISAGREEMENT: &str = "disagreement.nii.gz";
pub(super) const LABEL: &str = "label.nii.gz";

/// What came of one case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Compared {
    pub(super) annotators: usize,
    pub(super) pairs: Vec<PairRow>,
    pub(super) rows: Vec<AnnotatorRow>,
    /// Of each pair, all labels at once.
    pub(super) kappas: Vec<f64>,
    pub(super) disputed_share: Option<f64>,
    /// `None` when the chosen annotator did not draw the case.
    pub(super) label: Option<Made>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) voxels: Digest,
    pub(super) foreground: u64,
}

/// Compares the annotators of a case, and writes the disagreement map and the chosen label map into `into`.
pub(super) fn compare(
    case: &Case,
    dataset: &DatasetInfo,
    params: &Params,
    into: &Path,
    context: &StageContext,
) -> Result<Compared, StageError> {
    let files: Vec<(&str, Digest)> =
        case.annotations.iter().map(|own| (own.annotator.as_str(), own.file.digest)).collect();
    let names: BTreeMap<u8, &str> = dataset.foreground().collect();
    let key = json!({ "case": case.id, "files": files, "names": names, "params": params });
    context.memo(&key, into, |dir| {
        let drawn = read(case, context)?;
        let geometry = *drawn[0].1.geometry();
        let maps: Vec<&[u8]> = drawn.iter().map(|(_, map)| map.as_slice()).collect();
        let estimates: BTreeMap<u8, Staple> =
            names.keys().map(|label| (*label, staple(&maps, *label))).collect();
        let label = match params.label {
            Label::Majority => Some(majority(&maps)),
            Label::Staple => Some(most_probable(&estimates, maps[0].len())),
            Label::Annotator => drawn
                .iter()
                .find(|(annotator, _)| params.annotator.as_deref() == Some(annotator))
                .map(|(_, map)| map.as_slice().to_vec()),
        };
        let made = match &label {
            Some(label) => Some(write_label(label.clone(), geometry, &dir.join(LABEL))?),
            None => None,
        };
        let disputed = disagreement(&maps);
        let disputed_share = disputed_share(&maps, &disputed);
        let map = Image::from_vec(disputed, 1, geometry)
            .map_err(StageError::inner(format!("mapping the disagreement of case `{}`", case.id)))?;
        nifti::write_image(&dir.join(DISAGREEMENT), &map)
            .map_err(StageError::inner(format!("writing the disagreement of case `{}`", case.id)))?;
        let consensus = label.unwrap_or_else(|| majority(&maps));
        Ok(Compared {
            annotators: drawn.len(),
            pairs: pair_rows(case, &drawn, &names)?,
            rows: annotator_rows(case, &drawn, &consensus, &estimates, &names)?,
            kappas: pairs(&drawn)
                .map(|(one, other)| kappa(one.1.as_slice(), other.1.as_slice()))
                .filter(|kappa| !kappa.is_nan())
                .collect(),
            disputed_share,
            label: made,
        })
    })
}

type Drawn<'a> = (&'a str, LabelMap);

/// The label maps of all annotators; all must have the grid of the first.
fn read<'a>(case: &'a Case, context: &StageContext) -> Result<Vec<Drawn<'a>>, StageError> {
    if case.annotations.len() > MAX_RATERS {
        return Err(StageError::Data(format!(
            "case `{}` has {} annotators, at most {MAX_RATERS} can be compared",
            case.id,
            case.annotations.len()
        )));
    }
    let mut drawn: Vec<Drawn<'a>> = Vec::new();
    for own in &case.annotations {
        let path = context.source(&own.file.digest)?;
        let map = open::label(&path, Options::default())
            .map_err(StageError::inner(format!("reading `{}` of case `{}`", own.file.path, case.id)))?
            .volume;
        if let Some((first, known)) = drawn.first()
            && let Some(finding) = check::check_grids(known.geometry(), map.geometry())
        {
            return Err(StageError::Data(format!(
                "case `{}`: the label maps of `{first}` and `{}` are not on the same grid: {finding}",
                case.id, own.annotator
            )));
        }
        drawn.push((&own.annotator, map));
    }
    Ok(drawn)
}

fn pairs<'a, 'b>(drawn: &'b [Drawn<'a>]) -> impl Iterator<Item = (&'b Drawn<'a>, &'b Drawn<'a>)> {
    drawn.iter().enumerate().flat_map(|(index, one)| drawn[index + 1..].iter().map(move |other| (one, other)))
}

/// The label with the highest probability where that is a half or more; the smallest among equals.
fn most_probable(estimates: &BTreeMap<u8, Staple>, voxels: usize) -> Vec<u8> {
    let most = |voxel: usize| {
        let likely = estimates.iter().map(|(label, estimate)| (estimate.probability[voxel], *label));
        let best = likely.filter(|(probability, _)| *probability >= 0.5);
        best.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map_or(0, |(_, label)| label)
    };
    (0..voxels).map(most).collect()
}

fn write_label(label: Vec<u8>, geometry: Geometry, path: &Path) -> Result<Made, StageError> {
    let map = LabelMap::from_vec(label, geometry).map_err(StageError::inner("making a label map"))?;
    nifti::write_label(path, &map).map_err(StageError::inner("writing a label map"))?;
    let foreground = map.as_slice().iter().filter(|value| **value != 0).count() as u64;
    Ok(Made { voxels: Digest(digest::label_digest(&map).0), foreground })
}

/// Disputed voxels by voxels that anybody marked.
fn disputed_share(maps: &[&[u8]], disputed: &[f32]) -> Option<f64> {
    let marked = (0..disputed.len()).filter(|voxel| maps.iter().any(|map| map[*voxel] != 0)).count();
    let disputed = disputed.iter().filter(|share| **share > 0.0).count();
    (marked > 0).then(|| seven_digits(disputed as f64 / marked as f64))
}

fn defined(value: f64) -> Option<f64> {
    (!value.is_nan()).then(|| seven_digits(value))
}

fn pair_rows(
    case: &Case,
    drawn: &[Drawn<'_>],
    names: &BTreeMap<u8, &str>,
) -> Result<Vec<PairRow>, StageError> {
    let mut rows = Vec::new();
    for ((one, own), (other, theirs)) in pairs(drawn) {
        let confusion = confusion(own.as_slice(), theirs.as_slice())?;
        for (label, name) in names {
            let only = |map: &LabelMap| -> Vec<u8> {
                map.as_slice().iter().map(|value| u8::from(value == label)).collect()
            };
            rows.push(PairRow {
                case: case.id.clone(),
                one: (*one).to_owned(),
                other: (*other).to_owned(),
                label: *label,
                name: (*name).to_owned(),
                dice: defined(overlap::dice(&confusion.counts(*label))),
                kappa: defined(kappa(&only(own), &only(theirs))),
            });
        }
    }
    Ok(rows)
}

fn annotator_rows(
    case: &Case,
    drawn: &[Drawn<'_>],
    consensus: &[u8],
    estimates: &BTreeMap<u8, Staple>,
    names: &BTreeMap<u8, &str>,
) -> Result<Vec<AnnotatorRow>, StageError> {
    let mut rows = Vec::new();
    for (rater, (annotator, own)) in drawn.iter().enumerate() {
        let confusion = confusion(consensus, own.as_slice())?;
        for (label, name) in names {
            let counts = confusion.counts(*label);
            let estimate = &estimates[label];
            rows.push(AnnotatorRow {
                case: case.id.clone(),
                annotator: (*annotator).to_owned(),
                label: *label,
                name: (*name).to_owned(),
                voxels: counts.prediction(),
                dice: defined(overlap::dice(&counts)),
                sensitivity: defined(estimate.sensitivity[rater]),
                specificity: defined(estimate.specificity[rater]),
            });
        }
    }
    Ok(rows)
}

fn confusion(one: &[u8], other: &[u8]) -> Result<Confusion, StageError> {
    Confusion::of(one, other).map_err(StageError::inner("comparing label maps"))
}
