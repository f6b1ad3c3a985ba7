//! Choices for the rest of the pipeline that follow from the numbers, each with its reason.

use super::outliers::brief;
use crate::artifacts::{Advice, CaseRow, IntensityRow, LabelSummary};
use std::collections::{BTreeMap, BTreeSet};

/// What advice is drawn from.
pub(super) struct Evidence<'a> {
    pub(super) cases: &'a [CaseRow],
    pub(super) intensities: &'a [IntensityRow],
    pub(super) labels: &'a [LabelSummary],
    /// Sizes of the boxes around the foreground in voxels; z, y, x.
    pub(super) boxes: &'a [[usize; 3]],
    /// Cases of each class.
    pub(super) classes: &'a BTreeMap<String, usize>,
}

/// Beyond this ratio of the voxel's sides, nnU-Net treats the coarse axis separately.
const ANISOTROPIC: f64 = 3.0;
/// Voxel sizes this close are one size.
const SAME_SPACING: f64 = 1.01;
/// Beyond this ratio between cases, intensities are on different scales.
const SCALES: f64 = 10.0;
/// Below this share, most voxels of a random patch teach nothing.
const RARE_FOREGROUND: f64 = 0.1;
/// Patches with longer sides fit no common graphics card at a useful batch size.
const LARGEST_PATCH: usize = 128;
/// A foreground box below this share of the image is worth cropping to.
const SMALL_BOX: f64 = 0.3;
/// A class this many times as frequent as another drowns it.
const UNEVEN: f64 = 2.0;

pub(super) fn advise(evidence: &Evidence<'_>) -> Vec<Advice> {
    let checks =
        [spacing, anisotropy, orientation, field_of_view, normalisation, imbalance, absent, pieces, classes];
    checks.iter().filter_map(|check| check(evidence)).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "every check ends with it")]
fn advice(about: &str, advice: impl Into<String>, reason: String) -> Option<Advice> {
    Some(Advice { about: about.into(), advice: advice.into(), reason })
}

fn spacings(evidence: &Evidence<'_>) -> [Vec<f64>; 3] {
    let column = |pick: fn(&CaseRow) -> f64| evidence.cases.iter().map(pick).collect();
    [column(|row| row.spacing_z_mm), column(|row| row.spacing_y_mm), column(|row| row.spacing_x_mm)]
}

fn median(values: &[f64]) -> f64 {
    pipe_metrics::summary::Summary::of(values).median
}

/// Smallest and largest of positive values.
fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(min, max), value| (min.min(*value), max.max(*value)))
}

fn classes(evidence: &Evidence<'_>) -> Option<Advice> {
    let most = evidence.classes.iter().max_by_key(|(_, count)| **count)?;
    let fewest = evidence.classes.iter().min_by_key(|(_, count)| **count)?;
    let times = *most.1 as f64 / *fewest.1 as f64;
    if times < UNEVEN {
        return None;
    }
    advice(
        "class imbalance",
        "split with `stratify: [class]`, weigh the loss by class, and judge by balanced accuracy or AUC, not accuracy",
        format!(
            "`{}` has {} cases, {} times the {} of `{}`",
            most.0,
            most.1,
            brief(times),
            fewest.1,
            fewest.0
        ),
    )
}

fn spacing(evidence: &Evidence<'_>) -> Option<Advice> {
    let spacings = spacings(evidence);
    let [z, y, x] = spacings.each_ref().map(|values| brief(median(values)));
    if spacings.iter().map(|values| range(values)).all(|(min, max)| max <= min * SAME_SPACING) {
        return advice(
            "spacing",
            "no resampling is needed",
            format!("every case has voxels of {z}×{y}×{x} mm (z×y×x)"),
        );
    }
    let [rz, ry, rx] = spacings
        .each_ref()
        .map(|values| range(values))
        .map(|(min, max)| format!("{} to {}", brief(min), brief(max)));
    advice(
        "spacing",
        format!("resample to `spacing_mm: [{z}, {y}, {x}]`, the medians"),
        format!("voxel sizes differ: z {rz}, y {ry}, x {rx} mm"),
    )
}

fn anisotropy(evidence: &Evidence<'_>) -> Option<Advice> {
    let medians = spacings(evidence).map(|values| median(&values));
    let (min, max) = range(&medians);
    if max / min <= ANISOTROPIC {
        return None;
    }
    let [z, y, x] = medians.map(brief);
    advice(
        "anisotropy",
        "try a 2D network too, and do not pool the coarse axis at first",
        format!("the median voxel is {z}×{y}×{x} mm (z×y×x): one side is {} times another", brief(max / min)),
    )
}

fn orientation(evidence: &Evidence<'_>) -> Option<Advice> {
    let found: BTreeSet<&str> = evidence.cases.iter().map(|row| row.orientation.as_str()).collect();
    if found.len() < 2 {
        return None;
    }
    let found: Vec<&str> = found.into_iter().collect();
    advice("orientation", "bring all cases to RAS", format!("files are stored as {}", found.join(", ")))
}

fn field_of_view(evidence: &Evidence<'_>) -> Option<Advice> {
    let largest = (0..3)
        .map(|axis| evidence.boxes.iter().map(|size| size[axis]).max().unwrap_or(0))
        .collect::<Vec<_>>();
    let &[z, y, x] = largest.as_slice() else { return None };
    let shares: Vec<f64> = evidence
        .cases
        .iter()
        .filter(|row| row.border_voxels.is_some())
        .zip(evidence.boxes)
        .map(|(row, size)| {
            size.iter().product::<usize>() as f64 / (row.shape_z * row.shape_y * row.shape_x) as f64
        })
        .collect();
    if shares.is_empty() {
        return None;
    }
    let reason = format!(
        "the foreground fits into {z}×{y}×{x} voxels (z×y×x) in every case; the median box fills {} % of its image",
        brief(median(&shares) * 100.0)
    );
    if z.max(y).max(x) > LARGEST_PATCH {
        let text = format!("downsample, or train on patches: a whole box exceeds {LARGEST_PATCH} voxels");
        return advice("field of view", text, reason);
    }
    if median(&shares) < SMALL_BOX {
        // With a margin, and so that a network can halve it three times; a slice stays one.
        let roomy = |size: usize| if size == 1 { 1 } else { (size + size / 8).next_multiple_of(8) };
        let [z, y, x] = [z, y, x].map(roomy);
        return advice(
            "field of view",
            format!("crop around the foreground, e.g. to {z}×{y}×{x} voxels"),
            reason,
        );
    }
    advice("field of view", "use whole images: neither crop nor downsample", reason)
}

fn normalisation(evidence: &Evidence<'_>) -> Option<Advice> {
    let mut scales: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in evidence.intensities.iter().filter(|row| row.p99 > row.p1) {
        scales.entry(&row.channel).or_default().push(row.p99 - row.p1);
    }
    let ratio = |values: &Vec<f64>| {
        let (min, max) = range(values);
        (max / min, min, max)
    };
    let (channel, (factor, min, max)) = scales
        .iter()
        .map(|(channel, values)| (channel, ratio(values)))
        .max_by(|a, b| a.1.0.total_cmp(&b.1.0))?;
    if factor > SCALES {
        return advice(
            "normalisation",
            "z-score every image by itself; global clipping or scaling would erase most cases",
            format!(
                "the range from 1st to 99th percentile of {channel} differs by a factor of {} between cases ({} to {})",
                brief(factor),
                brief(min),
                brief(max)
            ),
        );
    }
    advice(
        "normalisation",
        "z-score every image, or scale all alike",
        format!("intensity ranges of {channel} differ by a factor of {} only", brief(factor)),
    )
}

fn imbalance(evidence: &Evidence<'_>) -> Option<Advice> {
    let shares: Vec<f64> = evidence.cases.iter().filter_map(|row| row.foreground_share).collect();
    let share = median(&shares);
    let rarest = evidence.labels.iter().min_by(|a, b| a.voxel_share.total_cmp(&b.voxel_share))?;
    (share < RARE_FOREGROUND).then_some(())?;
    advice(
        "imbalance",
        "use a Dice loss, and draw patches that contain foreground",
        format!(
            "the median case is {} % foreground; `{}` is {} % of all voxels",
            brief(share * 100.0),
            rarest.name,
            brief(rarest.voxel_share * 100.0)
        ),
    )
}

fn absent(evidence: &Evidence<'_>) -> Option<Advice> {
    let labelled = evidence.cases.iter().filter(|row| row.foreground_voxels.is_some()).count();
    let missing: Vec<String> = evidence
        .labels
        .iter()
        .filter(|label| label.cases < labelled)
        .map(|label| format!("`{}` is absent in {} of {labelled} cases", label.name, labelled - label.cases))
        .collect();
    if missing.is_empty() {
        return None;
    }
    advice("absent labels", "report how empty masks are scored beside the mean", missing.join("; "))
}

fn pieces(evidence: &Evidence<'_>) -> Option<Advice> {
    let present: Vec<&LabelSummary> = evidence.labels.iter().filter(|label| label.cases > 0).collect();
    let whole = |label: &&LabelSummary| label.in_pieces as f64 <= 0.02 * label.cases as f64;
    if present.is_empty() || !present.iter().all(whole) {
        return None;
    }
    let counts: Vec<String> = present
        .iter()
        .map(|label| format!("`{}` in {} of {} cases", label.name, label.in_pieces, label.cases))
        .collect();
    advice(
        "components",
        "keep the largest component of each label after prediction",
        format!("labels are almost never in pieces: {}", counts.join(", ")),
    )
}
