//! From a pair of label maps to the values of every label and group of one case.

use super::scoring::{Scoring, Target};
use crate::artifacts::predictor::labels_text;
use pipe_imaging::LabelMap;
use pipe_imaging::check::{self, Finding};
use pipe_metrics::grid::Grid;
use pipe_metrics::segmentation::{Presence, Settings, Value, score};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The values of one target in one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::kinds) struct TargetScore {
    pub(in crate::kinds) presence: Presence,
    /// In the order of [`Scoring::metrics`].
    pub(in crate::kinds) values: Vec<Value>,
}

/// What two grids disagree in, the first of them the prediction's.
fn disagreement(finding: &Finding) -> String {
    match finding {
        Finding::ShapeMismatch { image, mask } => {
            format!("it has {mask} voxels but the prediction {image} (z×y×x)")
        }
        Finding::SpacingMismatch { image_mm, mask_mm } => {
            format!("its voxels are {mask_mm:?} mm but the prediction's {image_mm:?} mm (z, y, x)")
        }
        Finding::OrientationMismatch { image, mask } => {
            format!("its axes are {mask} but the prediction's {image}")
        }
        other => other.to_string(),
    }
}

/// How far apart two label maps of the same shape lie by their affines in mm, where that is more than headers are rounded.
pub(super) fn apart_mm(reference: &LabelMap, prediction: &LabelMap) -> Option<f64> {
    match check::check_grids(prediction.geometry(), reference.geometry()) {
        Some(Finding::PlacementMismatch { distance_mm }) => Some(distance_mm),
        _ => None,
    }
}

/// Scores of every target, in their order; `labels` are the values that may occur, `None` for all. The error completes a
/// sentence that names the reference: another grid than the prediction's, or a value that is no label.
pub(in crate::kinds) fn score_case(
    reference: &LabelMap,
    prediction: &LabelMap,
    labels: Option<&BTreeMap<u8, String>>,
    targets: &[Target],
    scoring: &Scoring,
) -> Result<Vec<TargetScore>, String> {
    // Smaller differences than these are warnings at import: voxels belong together although headers do not quite.
    let finding = check::check_grids(prediction.geometry(), reference.geometry());
    if let Some(finding) = finding.filter(|finding| finding.severity() == check::Severity::Error) {
        return Err(format!("cannot be compared with its prediction: {}", disagreement(&finding)));
    }
    let geometry = reference.geometry();
    let grid = Grid::new(geometry.shape.0, geometry.spacing_mm()).map_err(|error| error.to_string())?;
    let single: Vec<u8> =
        targets.iter().filter(|target| !target.is_group()).map(|target| target.label).collect();
    let tolerances = targets.iter().map(|target| (target.label, target.tolerance_mm)).collect();
    let settings = Settings { tolerances_mm: tolerances, ..scoring.settings() };
    let (reference, prediction) = (reference.as_slice(), prediction.as_slice());
    let case = score(reference, prediction, &grid, &single, &settings).map_err(|error| error.to_string())?;
    for (found, whose) in
        [(&case.in_reference, ""), (&case.in_prediction, "is compared with a prediction that ")]
    {
        let Some(labels) = labels else { break };
        if let Some(unknown) = found.iter().find(|label| !labels.contains_key(label)) {
            return Err(format!("{whose}has the value {unknown} but the labels are {}", labels_text(labels)));
        }
    }
    let mut scores = case.scores;
    for group in targets.iter().filter(|target| target.is_group()) {
        let joined = |map: &[u8]| -> Vec<u8> {
            map.iter().map(|label| if group.members.contains(label) { group.label } else { 0 }).collect()
        };
        let one = score(&joined(reference), &joined(prediction), &grid, &[group.label], &settings);
        scores.extend(one.map_err(|error| error.to_string())?.scores);
    }
    Ok(scores
        .into_iter()
        .map(|score| TargetScore { presence: score.presence, values: score.values })
        .collect())
}
