//! Deals cases into a test set and cross-validation folds, and proves that nothing leaks between them.

mod deal;
mod leaks;
mod official;
mod strata;

use self::deal::{Group, deal};
use self::official::Official;
use crate::artifact::{In, InOptional, Out, Ports};
use crate::artifacts::{CaseTable, DuplicateTable, FoldRow, FoldTable, Part};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub struct Split;

pub const CASES: In<CaseTable> = In::new("cases");
/// What `dedup` found; no pair of it may span two sides.
pub const DUPLICATES: InOptional<DuplicateTable> = InOptional::new("duplicates");
pub const FOLDS: Out<FoldTable> = Out::new("folds");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Number of cross-validation folds; at least 2.
    pub folds: usize,
    /// Share of the cases that is set aside for the test, from 0 (no test set) to below 1. Without effect where
    /// `nested` or `official` chooses the test set.
    pub test: f64,
    /// What must stay together on one side. Cases that `dedup` grouped are one patient.
    pub group_by: GroupBy,
    /// What every part should have its share of: `class`, `mask-size` (quarters by the number of foreground voxels) or
    /// a further column of the case table, such as `site`; numbers are cut into quarters. Several are combined.
    pub stratify: Vec<String>,
    /// Which of several cross-validations this is, from 0: the same test set, other folds. For repeated
    /// cross-validation, make it a matrix.
    pub repeat: usize,
    /// The outer loop of a nested cross-validation: its fold is the test set, all others are dealt into `folds`. Make
    /// `fold` a matrix.
    pub nested: Option<Nested>,
    /// Take the parts that the authors of the data set made.
    pub official: Option<Official>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            folds: 5,
            test: 0.2,
            group_by: GroupBy::Patient,
            stratify: Vec::new(),
            repeat: 0,
            nested: None,
            official: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GroupBy {
    /// All cases of a patient.
    Patient,
    /// Nothing: two images of one patient may land on both sides, and the scores then flatter the model.
    Case,
}

impl GroupBy {
    fn unit(self) -> &'static str {
        match self {
            Self::Patient => "patients",
            Self::Case => "cases",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nested {
    /// Number of outer folds; at least 2.
    pub folds: usize,
    /// The outer fold that is the test set, from 0.
    pub fold: usize,
}

impl Stage for Split {
    const KIND: &'static str = "split";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Divides cases into a test set and cross-validation folds; no patient and no duplicate spans two of them.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut problem = |parameter, message: String, help: &str| {
            problems.push(ParamProblem { parameter, message, help: help.into() });
        };
        if params.folds < 2 {
            let message = format!("{} folds leave nothing to validate on", params.folds);
            problem("folds", message, "use 2 or more");
        }
        if !(0.0..1.0).contains(&params.test) {
            let help = "use a number from 0 (no test set) to below 1, such as 0.2";
            problem("test", format!("{} is no share of the cases", params.test), help);
        }
        if let Some(Nested { folds, fold }) = params.nested
            && (folds < 2 || fold >= folds)
        {
            problem(
                "nested",
                format!("there is no outer fold {fold} of {folds}"),
                "use `nested: { folds: 5, fold: 0 }`, and `fold` from 0 to `folds` - 1",
            );
        }
        if params.nested.is_some() && params.official.is_some() {
            problem("official", "chooses the test set, and so does `nested`".into(), "leave one of them out");
        }
        problems
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&CASES).reads_optional(&DUPLICATES).writes(&FOLDS).seeded();
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        let duplicates = context.read_optional(&DUPLICATES)?;
        let groups = groups(&table, params)?;
        let parts = match &params.official {
            Some(official) => official::parts(&table, &groups, official, params, context.seed()?)?,
            None => parts(&table, &groups, params, context.seed()?)?,
        };
        let row = |(case, part): (&crate::artifacts::Case, &Part)| FoldRow {
            id: case.id.clone(),
            patient: case.patient.clone(),
            part: *part,
        };
        let folds = FoldTable { rows: table.cases.iter().zip(&parts).map(row).collect() };
        leaks::check(&table, &folds, duplicates.as_ref(), params.group_by)?;
        report(&folds, &groups, params, context);
        context.write(&FOLDS, &folds)
    }
}

/// The cases that stay together, in order of the first of each, with the stratum of each group.
fn groups(table: &CaseTable, params: &Params) -> Result<Vec<Group>, StageError> {
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, case) in table.cases.iter().enumerate() {
        let name = match params.group_by {
            GroupBy::Patient => &case.patient,
            GroupBy::Case => &case.id,
        };
        members.entry(name).or_default().push(index);
    }
    let mut groups: Vec<Group> = members
        .into_iter()
        .map(|(name, cases)| Group { name: name.to_owned(), cases, stratum: String::new() })
        .collect();
    for column in &params.stratify {
        strata::refine(&mut groups, table, column)?;
    }
    Ok(groups)
}

/// The part of every case, by index.
fn parts(table: &CaseTable, groups: &[Group], params: &Params, seed: u64) -> Result<Vec<Part>, StageError> {
    let all: Vec<&Group> = groups.iter().collect();
    let (shares, tested) = match params.nested {
        Some(Nested { folds, fold }) => (vec![1.0 / folds as f64; folds], fold),
        None => (vec![params.test, 1.0 - params.test], 0),
    };
    if all.len() < shares.iter().filter(|share| **share > 0.0).count() {
        return Err(too_few(0, all.len(), params));
    }
    let dealt = deal(&all, &shares, seed, "test");
    let (test, rest): (Vec<_>, Vec<_>) = all.into_iter().zip(dealt).partition(|(_, part)| *part == tested);
    let rest: Vec<&Group> = rest.into_iter().map(|(group, _)| group).collect();
    let mut parts = vec![Part::Test; table.cases.len()];
    deal_folds(&rest, test.len(), params, seed, &mut parts)?;
    Ok(parts)
}

/// Deals these groups into the folds. `elsewhere` is how many groups have a part already.
fn deal_folds(
    groups: &[&Group],
    elsewhere: usize,
    params: &Params,
    seed: u64,
    parts: &mut [Part],
) -> Result<(), StageError> {
    if groups.len() < params.folds {
        return Err(too_few(elsewhere, groups.len() + elsewhere, params));
    }
    let shares = vec![1.0 / params.folds as f64; params.folds];
    let salt = match params.nested {
        Some(Nested { folds, fold }) => format!("folds {} of {fold} of {folds}", params.repeat),
        None => format!("folds {}", params.repeat),
    };
    for (group, fold) in groups.iter().zip(deal(groups, &shares, seed, &salt)) {
        for &case in &group.cases {
            parts[case] = Part::Fold(fold);
        }
    }
    Ok(())
}

fn too_few(tested: usize, all: usize, params: &Params) -> StageError {
    let unit = params.group_by.unit();
    StageError::Data(format!(
        "{} {unit} are too few for {} folds: {tested} of {all} {unit} are in the test set; use fewer folds, a smaller \
         test share or more data",
        all - tested,
        params.folds,
    ))
}

fn report(folds: &FoldTable, groups: &[Group], params: &Params, context: &StageContext) {
    let mut sizes: BTreeMap<Part, usize> = BTreeMap::new();
    let mut sides: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
    for row in &folds.rows {
        *sizes.entry(row.part).or_default() += 1;
        sides.entry(&row.patient).or_default().push(row.part);
    }
    let per_fold: Vec<usize> =
        (0..folds.folds()).filter_map(|fold| sizes.get(&Part::Fold(fold)).copied()).collect();
    context.fact("patients", sides.len());
    context.fact("test cases", sizes.get(&Part::Test).copied().unwrap_or(0));
    context.fact("cases per fold", per_fold);
    if !params.stratify.is_empty() {
        let parts: Vec<Part> = folds.rows.iter().map(|row| row.part).collect();
        context.fact("largest imbalance", strata::imbalance(groups, &parts));
        for line in strata::describe(groups, &parts) {
            context.note(line);
        }
    }
    let spanning = sides.values().filter(|parts| parts.iter().any(|part| *part != parts[0])).count();
    if spanning > 0 {
        context.warn(format!(
            "{spanning} of {} patients are on more than one side because of `group_by: case`: scores will be too good",
            sides.len()
        ));
    }
}

#[cfg(test)]
mod tests;
