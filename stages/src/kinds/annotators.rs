//! Compares what several people drew on the same image, and makes one label map of it.

mod compare;

use self::compare::{Compared, compare};
use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::table_file::seven_digits;
use crate::artifacts::{Agreement, Case, CaseTable, Dataset, FileRef, RankRow};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use fs_err as fs;
use pipe_cache::hash_file;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Annotators;

pub const CASES: In<CaseTable> = In::new("cases");
/// The cases with the chosen label map as theirs.
pub const LABELLED: Out<CaseTable> = Out::new("cases");
pub const AGREEMENT: Out<Agreement> = Out::new("agreement");
/// The label maps that were made.
pub const DATASET: Out<Dataset> = Out::new("dataset");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Which label map the cases have from here on. To evaluate against each annotator, make `annotator` a matrix.
    pub label: Label,
    /// The annotator whose label maps are taken; with `label: annotator`.
    pub annotator: Option<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self { label: Label::Staple, annotator: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// Each annotator weighs as much as he or she agrees with all together (STAPLE, label by label): a voxel gets the
    /// most probable label if that has a probability of a half or more.
    Staple,
    /// The value that most annotators hold; the smallest of those among equals.
    Majority,
    /// That of one annotator. Cases that he or she did not draw are left out.
    Annotator,
}

impl Stage for Annotators {
    const KIND: &'static str = "annotators";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str =
        "Compares what several annotators drew, ranks disputed cases and makes a consensus of it.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let problem = |message: &str, help: &str| {
            vec![ParamProblem { parameter: "annotator", message: message.into(), help: help.into() }]
        };
        match (params.label, &params.annotator) {
            (Label::Annotator, None) => {
                problem("names nobody, but `label` is `annotator`", "use `annotator: NAME`")
            }
            (Label::Staple | Label::Majority, Some(_)) => problem(
                "names one, but the label is made of all",
                "use `label: annotator`, or leave `annotator` out",
            ),
            _ => Vec::new(),
        }
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&CASES).writes(&LABELLED).writes(&AGREEMENT).writes(&DATASET).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        refuse_unknown(params, &table)?;
        let maps = context.output_dir(&AGREEMENT)?.join(Agreement::MAPS);
        let labels = context.output_dir(&DATASET)?.join(Dataset::LABELS);
        for dir in [&maps, &labels] {
            fs::create_dir_all(dir).map_err(StageError::io("create", dir))?;
        }
        let done = AtomicUsize::new(0);
        let one = |case: &Case| {
            let result = labelled(case, &table, params, [&maps, &labels], context)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            context.progress(done, table.cases.len(), "cases", case.id.as_str());
            Ok(result)
        };
        let results: Result<Vec<Labelled>, StageError> = table.cases.par_iter().map(one).collect();
        finish(&table, results?, params, context)
    }
}

/// A case as it goes on, unless it is left out, and what was compared.
struct Labelled {
    case: Option<Case>,
    compared: Option<Compared>,
}

fn refuse_unknown(params: &Params, table: &CaseTable) -> Result<(), StageError> {
    let all = || table.cases.iter().flat_map(|case| &case.annotations).map(|own| own.annotator.as_str());
    let known: std::collections::BTreeSet<&str> = all().collect();
    let names = known.iter().copied().collect::<Vec<_>>().join("`, `");
    if known.is_empty() {
        return Err(StageError::Data(
            "no case has the label map of an annotator: give the import a table with a column for each"
                .into(),
        ));
    }
    match &params.annotator {
        Some(wanted) if !known.contains(wanted.as_str()) => {
            Err(StageError::Data(format!("there is no annotator `{wanted}`; the annotators are `{names}`")))
        }
        _ => Ok(()),
    }
}

fn labelled(
    case: &Case,
    table: &CaseTable,
    params: &Params,
    [maps, labels]: [&Path; 2],
    context: &StageContext,
) -> Result<Labelled, StageError> {
    if case.annotations.is_empty() {
        return Ok(Labelled {
            case: (params.label != Label::Annotator).then(|| case.clone()),
            compared: None,
        });
    }
    let into = context.scratch.join(&case.id);
    let compared = compare(case, &table.dataset, params, &into, context)?;
    let name = format!("{}.nii.gz", case.id);
    place(&into.join(compare::DISAGREEMENT), &maps.join(&name))?;
    let case = match &compared.label {
        None => None,
        Some(made) => {
            let path = labels.join(&name);
            place(&into.join(compare::LABEL), &path)?;
            let digest = hash_file(&path).map_err(StageError::inner("hashing a label map"))?;
            Some(Case {
                label: Some(FileRef { path: format!("{}/{name}", Dataset::LABELS), digest }),
                label_voxels: Some(made.voxels),
                label_foreground: Some(made.foreground),
                ..case.clone()
            })
        }
    };
    Ok(Labelled { case, compared: Some(compared) })
}

/// The scratch folder goes when the stage ends, so its files can be moved.
fn place(from: &Path, to: &Path) -> Result<(), StageError> {
    fs::copy(from, to).map(|_| ()).map_err(StageError::io("copy", from))
}

fn finish(
    table: &CaseTable,
    results: Vec<Labelled>,
    params: &Params,
    context: &StageContext,
) -> Result<(), StageError> {
    let left_out = results.iter().filter(|result| result.case.is_none()).count();
    let alone = results
        .iter()
        .filter(|result| result.compared.as_ref().is_none_or(|compared| compared.annotators < 2))
        .count();
    let mut agreement = Agreement { pairs: Vec::new(), annotators: Vec::new(), ranking: Vec::new() };
    let mut cases = Vec::new();
    for (case, result) in table.cases.iter().zip(results) {
        cases.extend(result.case);
        let Some(compared) = result.compared else { continue };
        if compared.annotators >= 2 {
            agreement.ranking.push(RankRow {
                rank: 0,
                case: case.id.clone(),
                annotators: compared.annotators,
                mean_dice: mean(compared.pairs.iter().filter_map(|row| row.dice)),
                mean_kappa: mean(compared.kappas.iter().copied()),
                disputed_share: compared.disputed_share,
            });
        }
        agreement.pairs.extend(compared.pairs);
        agreement.annotators.extend(compared.rows);
    }
    // A case that everybody left empty is not disputed.
    let order = |row: &RankRow| row.mean_dice.unwrap_or(1.0);
    agreement.ranking.sort_by(|a, b| order(a).total_cmp(&order(b)).then_with(|| a.case.cmp(&b.case)));
    for (index, row) in agreement.ranking.iter_mut().enumerate() {
        row.rank = index + 1;
    }
    context.fact("cases", cases.len());
    context.fact("compared", agreement.ranking.len());
    if let Some(dice) = mean(agreement.ranking.iter().filter_map(|row| row.mean_dice)) {
        context.fact("mean dice of annotators", dice);
    }
    if alone > 0 {
        context.warn(format!("{alone} of {} cases have fewer than two annotators", table.cases.len()));
    }
    if left_out > 0 {
        let who = params.annotator.as_deref().unwrap_or_default();
        context.warn(format!("{left_out} cases that `{who}` did not draw are left out"));
    }
    context.write(&LABELLED, &CaseTable { dataset: table.dataset.clone(), cases })?;
    context.write(&AGREEMENT, &agreement)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| seven_digits(sum / count as f64))
}

#[cfg(test)]
mod tests;
