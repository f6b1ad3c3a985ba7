//! Images and label maps that are equal voxel for voxel, by their digests in the case table. Opens no file.

use super::row;
use crate::artifacts::{Case, CaseTable, Duplicate, DuplicateKind};
use pipe_cache::Digest;
use std::collections::BTreeMap;

/// Every case whose image equals that of an earlier case, and the indices of all others.
pub(super) fn images(table: &CaseTable) -> (Vec<Duplicate>, Vec<usize>) {
    let mut seen: BTreeMap<Digest, usize> = BTreeMap::new();
    let (mut rows, mut firsts) = (Vec::new(), Vec::new());
    for (index, case) in table.cases.iter().enumerate() {
        let Some(&first) = seen.get(&case.voxels) else {
            seen.insert(case.voxels, index);
            firsts.push(index);
            continue;
        };
        rows.push(Duplicate {
            content: Some(case.voxels),
            remark: label_remark(&table.cases[first], case).to_owned(),
            ..row(table, first, index, DuplicateKind::ExactImage, 1.0)
        });
    }
    (rows, firsts)
}

/// Of the cases with these indices, every one whose label map equals that of an earlier one, and the indices of all
/// others that have a label map which is not empty. A file that two cases name is shared on purpose: so do the time points
/// of a scan.
pub(super) fn labels(table: &CaseTable, among: &[usize]) -> (Vec<Duplicate>, Vec<usize>) {
    let mut seen: BTreeMap<Digest, usize> = BTreeMap::new();
    let (mut rows, mut firsts) = (Vec::new(), Vec::new());
    for &index in among {
        let case = &table.cases[index];
        let (Some(label), Some(1..)) = (case.label_voxels, case.label_foreground) else { continue };
        let Some(&first) = seen.get(&label) else {
            seen.insert(label, index);
            firsts.push(index);
            continue;
        };
        if table.cases[first].label == case.label {
            continue;
        }
        rows.push(Duplicate {
            content: Some(label),
            remark: "the images differ: one of the two is labelled wrongly".into(),
            ..row(table, first, index, DuplicateKind::ExactLabel, 1.0)
        });
    }
    (rows, firsts)
}

/// What the label maps of two cases with equal images say about each other.
pub(super) fn label_remark(first: &Case, case: &Case) -> &'static str {
    match (first.label_voxels, case.label_voxels) {
        (Some(a), Some(b)) if a != b => "the label maps differ",
        (Some(_), None) | (None, Some(_)) => "only one of the two has a label map",
        _ => "",
    }
}
