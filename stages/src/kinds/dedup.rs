//! Finds cases that hold the same image or the same label map, before a split can put them on two sides.

use crate::artifact::{In, Out, Ports};
use crate::artifacts::{Case, CaseTable, Duplicate, DuplicateAction, DuplicateKind, DuplicateTable};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::listing::listing;
use crate::stage::Stage;
use pipe_cache::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub struct Dedup;

pub const CASES: In<CaseTable> = In::new("cases");
pub const UNIQUE: Out<CaseTable> = Out::new("cases");
pub const DUPLICATES: Out<DuplicateTable> = Out::new("duplicates");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// What to do with a case whose image has the same shape and voxel values as that of an earlier case (by id).
    /// File names, compression and value type do not matter. The first case stays. The patients of equal images
    /// count as one person from then on.
    pub exact: OnExact,
    /// What to do with a case whose label map equals that of an earlier case although the images differ: one of the
    /// two is labelled wrongly. Empty label maps do not count.
    pub labels: OnLabels,
}

impl Default for Params {
    fn default() -> Self {
        Self { exact: OnExact::Remove, labels: OnLabels::Report }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnExact {
    /// Keep the first by id.
    Remove,
    /// Keep all.
    Keep,
    /// Stop the pipeline.
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnLabels {
    /// Keep both and say so.
    Report,
    /// Stop the pipeline.
    Fail,
    /// Keep the first by id.
    Remove,
}

impl Stage for Dedup {
    const KIND: &'static str = "dedup";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Removes cases that hold the same image twice and reports label maps used twice.";
    type Params = Params;

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&CASES).writes(&UNIQUE).writes(&DUPLICATES);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        let rows = find(&table, params);
        refuse(&rows, params)?;
        let removed: BTreeSet<&str> = rows
            .iter()
            .filter(|row| row.action == DuplicateAction::Removed)
            .map(|row| row.case.as_str())
            .collect();
        let mut unique = table.filtered(|case| !removed.contains(case.id.as_str()));
        let renamed = join_patients(&mut unique, &persons(&rows));
        report(&rows, removed.len(), renamed, context);
        context.fact("cases", unique.cases.len());
        context.write(&UNIQUE, &unique)?;
        context.write(&DUPLICATES, &DuplicateTable { rows })
    }
}

/// Every case that repeats an earlier one, in order of id. A case with an image seen before is not looked at for
/// its label map.
fn find(table: &CaseTable, params: &Params) -> Vec<Duplicate> {
    let mut images: BTreeMap<Digest, &Case> = BTreeMap::new();
    let mut labels: BTreeMap<Digest, &Case> = BTreeMap::new();
    let mut rows = Vec::new();
    for case in &table.cases {
        if let Some(first) = images.get(&case.voxels) {
            rows.push(Duplicate {
                action: match params.exact {
                    OnExact::Remove => DuplicateAction::Removed,
                    OnExact::Keep | OnExact::Fail => DuplicateAction::Kept,
                },
                remark: label_remark(first, case).to_owned(),
                ..row(case, first, DuplicateKind::ExactImage, case.voxels)
            });
            continue;
        }
        images.insert(case.voxels, case);
        let (Some(label), Some(1..)) = (case.label_voxels, case.label_foreground) else { continue };
        let Some(first) = labels.get(&label) else {
            labels.insert(label, case);
            continue;
        };
        rows.push(Duplicate {
            action: match params.labels {
                OnLabels::Remove => DuplicateAction::Removed,
                OnLabels::Report | OnLabels::Fail => DuplicateAction::Kept,
            },
            remark: "the images differ: one of the two is labelled wrongly".into(),
            ..row(case, first, DuplicateKind::ExactLabel, label)
        });
    }
    rows
}

fn row(case: &Case, first: &Case, kind: DuplicateKind, content: Digest) -> Duplicate {
    Duplicate {
        case: case.id.clone(),
        patient: case.patient.clone(),
        kind,
        same_as: first.id.clone(),
        same_as_patient: first.patient.clone(),
        content,
        action: DuplicateAction::Kept,
        remark: String::new(),
    }
}

fn label_remark(first: &Case, case: &Case) -> &'static str {
    match (first.label_voxels, case.label_voxels) {
        (Some(a), Some(b)) if a != b => "the label maps differ",
        (Some(_), None) | (None, Some(_)) => "only one of the two has a label map",
        _ => "",
    }
}

/// The patient that each renamed patient becomes. Equal images come from one person, so all cases of both
/// patients must stay together, also when the duplicate itself is removed.
fn persons(rows: &[Duplicate]) -> BTreeMap<String, String> {
    let mut merged: BTreeMap<String, String> = BTreeMap::new();
    let resolve = |merged: &BTreeMap<String, String>, name: &str| {
        let mut name = name.to_owned();
        while let Some(next) = merged.get(&name) {
            name.clone_from(next);
        }
        name
    };
    for row in rows.iter().filter(|row| row.kind == DuplicateKind::ExactImage) {
        let (one, other) = (resolve(&merged, &row.same_as_patient), resolve(&merged, &row.patient));
        if one != other {
            merged.insert(one.clone().max(other.clone()), one.min(other));
        }
    }
    merged.keys().map(|name| (name.clone(), resolve(&merged, name))).collect()
}

/// Gives the cases of a renamed patient the other name; returns how many cases that were.
fn join_patients(table: &mut CaseTable, persons: &BTreeMap<String, String>) -> usize {
    let mut renamed = 0;
    for case in &mut table.cases {
        if let Some(person) = persons.get(&case.patient) {
            case.patient.clone_from(person);
            renamed += 1;
        }
    }
    renamed
}

fn refuse(rows: &[Duplicate], params: &Params) -> Result<(), StageError> {
    let refused: Vec<String> = rows
        .iter()
        .filter(|row| match row.kind {
            DuplicateKind::ExactImage => params.exact == OnExact::Fail,
            DuplicateKind::ExactLabel => params.labels == OnLabels::Fail,
        })
        .map(|row| match row.kind {
            DuplicateKind::ExactImage => {
                format!("case `{}` holds the image of case `{}`", row.case, row.same_as)
            }
            DuplicateKind::ExactLabel => {
                format!("case `{}` holds the label map of case `{}`", row.case, row.same_as)
            }
        })
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(StageError::Data(listing("duplicates", &refused))) }
}

fn report(rows: &[Duplicate], removed: usize, renamed: usize, context: &StageContext) {
    let count = |kind| rows.iter().filter(|row| row.kind == kind).count();
    let (images, labels) = (count(DuplicateKind::ExactImage), count(DuplicateKind::ExactLabel));
    context.fact("duplicate images", images);
    context.fact("duplicate labels", labels);
    context.fact("removed", removed);
    if rows.is_empty() {
        return;
    }
    let joined = match renamed {
        0 => String::new(),
        _ => format!(", {renamed} given to another patient who shares an image with theirs"),
    };
    context.warn(format!(
        "{images} duplicate images and {labels} label maps used twice: {removed} cases removed{joined}"
    ));
}

#[cfg(test)]
mod tests;
