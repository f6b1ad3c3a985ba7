//! Divides the cases into a test set and cross-validation folds, so that nothing leaks from one to the other.

use crate::artifact::{In, Out, Ports};
use crate::artifacts::{CaseTable, FoldRow, FoldTable, Part};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub struct Split;

pub const CASES: In<CaseTable> = In::new("cases");
pub const FOLDS: Out<FoldTable> = Out::new("folds");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Number of cross-validation folds; at least 2.
    pub folds: usize,
    /// Share of the cases that is set aside for the test, from 0 (no test set) to below 1.
    pub test: f64,
    /// What must stay together on one side.
    pub group_by: GroupBy,
}

impl Default for Params {
    fn default() -> Self {
        Self { folds: 5, test: 0.2, group_by: GroupBy::Patient }
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

impl Stage for Split {
    const KIND: &'static str = "split";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Divides cases into a test set and cross-validation folds; a patient never spans two of them.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        if params.folds < 2 {
            problems.push(ParamProblem {
                parameter: "folds",
                message: format!("{} folds leave nothing to validate on", params.folds),
                help: "use 2 or more".into(),
            });
        }
        if !(0.0..1.0).contains(&params.test) {
            problems.push(ParamProblem {
                parameter: "test",
                message: format!("{} is no share of the cases", params.test),
                help: "use a number from 0 (no test set) to below 1, such as 0.2".into(),
            });
        }
        problems
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&CASES).writes(&FOLDS).seeded();
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        let groups = ranked_groups(&table, params.group_by, context.seed()?);
        let parts = assign(&groups, table.cases.len(), params)?;
        let row = |(index, part): (usize, Part)| {
            let case = &table.cases[index];
            FoldRow { id: case.id.clone(), patient: case.patient.clone(), part }
        };
        let folds = FoldTable { rows: parts.into_iter().map(row).collect() };
        check_leaks(&table, &folds, params.group_by)?;
        report(&folds, params, context);
        context.write(&FOLDS, &folds)
    }
}

/// Cases that stay together, as indices into the case table.
type Group = Vec<usize>;

/// All groups in the order of a seeded hash of their names: a group that is added or removed leaves the order of
/// all others as it was.
fn ranked_groups(table: &CaseTable, group_by: GroupBy, seed: u64) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for (index, case) in table.cases.iter().enumerate() {
        let name = match group_by {
            GroupBy::Patient => &case.patient,
            GroupBy::Case => &case.id,
        };
        groups.entry(name).or_default().push(index);
    }
    let rank = |name: &str| {
        *blake3::Hasher::new().update(&seed.to_le_bytes()).update(name.as_bytes()).finalize().as_bytes()
    };
    let ranked: BTreeMap<([u8; 32], &str), Group> =
        groups.into_iter().map(|(name, group)| ((rank(name), name), group)).collect();
    ranked.into_values().collect()
}

/// The part of every case, by index. Groups come in ranked order.
///
/// The first groups are the test set, up to the number of cases closest to its share. The others are cut at equal
/// numbers of cases: a group belongs to the fold in which its middle case falls. Adding a case therefore moves
/// only groups next to a cut.
fn assign(groups: &[Group], cases: usize, params: &Params) -> Result<BTreeMap<usize, Part>, StageError> {
    let target = params.test * cases as f64;
    let (mut tested, mut test_groups) = (0, 0);
    for group in groups {
        let short = target - tested as f64;
        let over = (tested + group.len()) as f64 - target;
        let first = params.test > 0.0 && test_groups == 0;
        if !first && over >= short {
            break;
        }
        tested += group.len();
        test_groups += 1;
    }
    let (test, rest) = groups.split_at(test_groups);
    if rest.len() < params.folds {
        let unit = match params.group_by {
            GroupBy::Patient => "patients",
            GroupBy::Case => "cases",
        };
        return Err(StageError::Data(format!(
            "{} {unit} are too few for {} folds: {test_groups} of {} {unit} are in the test set; use fewer folds, a \
             smaller test share or more data",
            rest.len(),
            params.folds,
            groups.len()
        )));
    }
    let mut parts: BTreeMap<usize, Part> = test.iter().flatten().map(|&index| (index, Part::Test)).collect();
    let total = (cases - tested) as f64;
    let (mut before, mut fold) = (0, 0);
    for (position, group) in rest.iter().enumerate() {
        let middle = before as f64 + group.len() as f64 / 2.0;
        let by_count = (middle / total * params.folds as f64) as usize;
        // One group never fills two folds, and every later fold must find a group.
        let needed = (params.folds + position).saturating_sub(rest.len());
        fold = by_count.min(fold + usize::from(position > 0)).max(fold).max(needed);
        parts.extend(group.iter().map(|&index| (index, Part::Fold(fold))));
        before += group.len();
    }
    Ok(parts)
}

/// Fails when the same patient or the same image is on two sides.
fn check_leaks(table: &CaseTable, folds: &FoldTable, group_by: GroupBy) -> Result<(), StageError> {
    let mut patients: BTreeMap<&str, &FoldRow> = BTreeMap::new();
    let mut images: BTreeMap<_, &FoldRow> = BTreeMap::new();
    for (case, row) in table.cases.iter().zip(&folds.rows) {
        let first = *patients.entry(&case.patient).or_insert(row);
        if group_by == GroupBy::Patient && first.part != row.part {
            return Err(StageError::Internal(format!(
                "patient `{}` is on two sides: {} and {}",
                case.patient,
                place(first),
                place(row)
            )));
        }
        let first = *images.entry(case.voxels).or_insert(row);
        if first.part != row.part {
            return Err(StageError::Data(format!(
                "the same image is on two sides: {} and {}; put a `dedup` stage before the split",
                place(first),
                place(row)
            )));
        }
    }
    Ok(())
}

fn place(row: &FoldRow) -> String {
    match row.part {
        Part::Test => format!("case `{}` in the test set", row.id),
        Part::Fold(fold) => format!("case `{}` in fold {fold}", row.id),
    }
}

fn report(folds: &FoldTable, params: &Params, context: &StageContext) {
    let mut sizes: BTreeMap<Part, usize> = BTreeMap::new();
    let mut sides: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
    for row in &folds.rows {
        *sizes.entry(row.part).or_default() += 1;
        sides.entry(&row.patient).or_default().push(row.part);
    }
    let per_fold: Vec<usize> =
        (0..params.folds).filter_map(|fold| sizes.get(&Part::Fold(fold)).copied()).collect();
    context.fact("patients", sides.len());
    context.fact("test cases", sizes.get(&Part::Test).copied().unwrap_or(0));
    context.fact("cases per fold", per_fold);
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
