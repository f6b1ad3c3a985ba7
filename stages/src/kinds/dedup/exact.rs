//! Images and label maps that are equal voxel for voxel, by their digests in the case table. Opens no file.

use super::order::Ordered;
use super::row;
use crate::artifacts::{Case, Duplicate, DuplicateKind};
use pipe_cache::Digest;
use std::collections::BTreeMap;

/// Every case whose image equals that of a case which is rather kept, and the indices of all others.
pub(super) fn images(cases: &Ordered<'_>) -> (Vec<Duplicate>, Vec<usize>) {
    let table = cases.table;
    let mut seen: BTreeMap<Digest, usize> = BTreeMap::new();
    let (mut rows, mut firsts) = (Vec::new(), Vec::new());
    for index in cases.sorted((0..table.cases.len()).collect()) {
        let case = &table.cases[index];
        let Some(&first) = seen.get(&case.voxels) else {
            seen.insert(case.voxels, index);
            firsts.push(index);
            continue;
        };
        rows.push(Duplicate {
            content: Some(case.voxels),
            remark: remark(&table.cases[first], case),
            ..row(cases, first, index, DuplicateKind::ExactImage, 1.0)
        });
    }
    firsts.sort_unstable();
    (rows, firsts)
}

/// Of the cases with these indices, every one whose label map equals that of one which is rather kept, and the indices of all
/// others that have a label map which is not empty. A file that two cases name is shared on purpose: so do the time points
/// of a scan.
pub(super) fn labels(cases: &Ordered<'_>, among: &[usize]) -> (Vec<Duplicate>, Vec<usize>) {
    let table = cases.table;
    let mut seen: BTreeMap<Digest, usize> = BTreeMap::new();
    let (mut rows, mut firsts) = (Vec::new(), Vec::new());
    for index in cases.sorted(among.to_vec()) {
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
            ..row(cases, first, index, DuplicateKind::ExactLabel, 1.0)
        });
    }
    firsts.sort_unstable();
    (rows, firsts)
}

/// What is said differently of two cases with one image.
fn remark(first: &Case, case: &Case) -> String {
    let told = [class_remark(first, case), label_remark(first, case)];
    told.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
}

/// What the classes of two cases with the same image say about each other.
pub(super) fn class_remark(first: &Case, case: &Case) -> &'static str {
    match (&first.class, &case.class) {
        (Some(a), Some(b)) if a != b => "the classes differ: one of the two is wrong",
        _ => "",
    }
}

/// What the label maps of two cases with equal images say about each other.
pub(super) fn label_remark(first: &Case, case: &Case) -> &'static str {
    match (first.label_voxels, case.label_voxels) {
        (Some(a), Some(b)) if a != b => "the label maps differ",
        (Some(_), None) | (None, Some(_)) => "only one of the two has a label map",
        _ => "",
    }
}
