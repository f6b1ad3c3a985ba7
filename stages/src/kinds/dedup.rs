//! Finds cases that show the same or come from one scan, before a split can put them on two sides.

mod exact;
mod groups;
mod labels;
mod looks;
mod near;
mod order;
mod related;

use self::groups::Groups;
use self::looks::Look;
use self::order::Ordered;
use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::{CaseTable, Duplicate, DuplicateAction, DuplicateKind, DuplicateTable};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::listing::listing;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub struct Dedup;

pub const CASES: In<CaseTable> = In::new("cases");
pub const UNIQUE: Out<CaseTable> = Out::new("cases");
pub const DUPLICATES: Out<DuplicateTable> = Out::new("duplicates");

/// What is done about each kind of repetition. Whatever it is, `duplicates.csv` has the pair and its evidence.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Images with the same shape and voxel values. File names, compression and value type do not matter.
    pub exact: Treatment,
    /// Images that are the same but for intensity scale, noise, grid, mirroring or a shift of up to a twentieth of
    /// the field of view.
    pub near: Treatment,
    /// From which correlation on, from 0.8 to 1, images may be nearly the same. They are if they also stand out: no other
    /// image comes half as near.
    pub similarity: f64,
    /// Images that were cut from one scan, such as the two sides of a brain: the step between their intensities is
    /// the same number with many digits.
    pub related: Treatment,
    /// Label maps that are equal, or nearly so (Dice from 0.98), although the images differ: one of the two is
    /// labelled wrongly. Empty label maps do not count.
    pub labels: Treatment,
    /// The column of the case table that holds the part which the authors of the data set put a case into, `train`, `val`
    /// or `test`. Unless given: `split`, where a table has it.
    pub official: Option<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            exact: Treatment::Remove,
            near: Treatment::Group,
            similarity: 0.9,
            related: Treatment::Group,
            labels: Treatment::Report,
            official: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// Keep one: a case of an official test part rather than one of the validation part, and that rather than any other;
    /// the first by id among equals. The patients of the cases count as one person from then on if the images are the
    /// same.
    Remove,
    /// Keep all. The patients of the cases count as one person from then on.
    Group,
    /// Keep all as they are and say so.
    Report,
    /// Stop the pipeline.
    Fail,
    /// Do not look for it.
    Ignore,
}

impl Params {
    fn treatment(&self, kind: DuplicateKind) -> Treatment {
        match kind {
            DuplicateKind::ExactImage => self.exact,
            DuplicateKind::NearImage => self.near,
            DuplicateKind::Related => self.related,
            DuplicateKind::ExactLabel | DuplicateKind::NearLabel => self.labels,
        }
    }

    fn action(&self, kind: DuplicateKind) -> DuplicateAction {
        match self.treatment(kind) {
            Treatment::Remove => DuplicateAction::Removed,
            Treatment::Group => DuplicateAction::Grouped,
            Treatment::Report | Treatment::Fail | Treatment::Ignore => DuplicateAction::Reported,
        }
    }
}

impl Stage for Dedup {
    const KIND: &'static str = "dedup";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str =
        "Finds equal, nearly equal and related images and label maps used twice; removes or groups them.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        if (0.8..=1.0).contains(&params.similarity) {
            return Vec::new();
        }
        vec![ParamProblem {
            parameter: "similarity",
            message: format!("{} is not from 0.8 to 1", params.similarity),
            help: "use 0.9; lower finds more, and more that only looks alike".into(),
        }]
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&CASES).writes(&UNIQUE).writes(&DUPLICATES).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        let (rows, common_steps) = find(&Ordered::new(&table, params)?, params, context)?;
        for warning in common_steps {
            context.warn(warning);
        }
        refuse(&rows, params)?;
        let removed: BTreeSet<&str> = rows
            .iter()
            .filter(|row| row.action == DuplicateAction::Removed)
            .map(|row| row.case.as_str())
            .collect();
        let mut unique = table.filtered(|case| !removed.contains(case.id.as_str()));
        let renamed = join_patients(&mut unique, &persons(&rows));
        report(&rows, removed.len(), renamed, context);
        warn_of_large_groups(&table, &unique, context);
        context.fact("cases", unique.cases.len());
        context.fact("patients", unique.patients().len());
        context.write(&UNIQUE, &unique)?;
        context.write(&DUPLICATES, &DuplicateTable { rows })
    }
}

/// All pairs, sorted, and what was seen but is no evidence.
fn find(
    cases: &Ordered<'_>,
    params: &Params,
    context: &StageContext,
) -> Result<(Vec<Duplicate>, Vec<String>), StageError> {
    let mut rows = Vec::new();
    let mut warnings = Vec::new();
    let wanted = |kind| params.treatment(kind) != Treatment::Ignore;
    // A case with an image seen before is looked at no further.
    let (repeats, firsts) = exact::images(cases);
    if wanted(DuplicateKind::ExactImage) {
        rows.extend(repeats);
    }
    if wanted(DuplicateKind::NearImage) || wanted(DuplicateKind::Related) {
        let looks = Look::of_all(cases.table, &firsts, context)?;
        if wanted(DuplicateKind::NearImage) {
            rows.extend(near::pairs(cases, &looks, params.similarity, context)?);
        }
        if wanted(DuplicateKind::Related) {
            let (related, common) = related::pairs(cases, &looks);
            rows.extend(related);
            warnings.extend(common);
        }
    }
    if wanted(DuplicateKind::ExactLabel) {
        let copies = rows.iter().filter(|row| row.kind == DuplicateKind::NearImage);
        let copies: Vec<(String, String)> =
            copies.map(|row| (row.same_as.clone(), row.case.clone())).collect();
        let mut alike: Groups<&str> = Groups::default();
        for (one, other) in &copies {
            alike.join(one, other);
        }
        let (repeats, firsts) = exact::labels(cases, &firsts);
        let found = repeats.into_iter().chain(labels::pairs(cases, &firsts, context)?);
        // Copies of one image should have one label map; where theirs differ, the row of the images says so.
        rows.extend(found.filter(|row| alike.root(&row.same_as) != alike.root(&row.case)));
    }
    for row in &mut rows {
        row.action = params.action(row.kind);
    }
    rows.sort_by(|a, b| (&a.case, a.kind, &a.same_as).cmp(&(&b.case, b.kind, &b.same_as)));
    Ok((rows, warnings))
}

/// A row about two cases by index, the one that would be kept as `same_as`; the action is filled in at the end.
fn row(cases: &Ordered<'_>, one: usize, other: usize, kind: DuplicateKind, score: f64) -> Duplicate {
    let (kept, repeat) = if cases.key(one) < cases.key(other) { (one, other) } else { (other, one) };
    let (first, case) = (&cases.table.cases[kept], &cases.table.cases[repeat]);
    Duplicate {
        case: case.id.clone(),
        patient: case.patient.clone(),
        kind,
        same_as: first.id.clone(),
        same_as_patient: first.patient.clone(),
        score: crate::artifacts::table_file::seven_digits(score),
        runner_up: None,
        content: None,
        action: DuplicateAction::Reported,
        remark: String::new(),
    }
}

/// The patient that each renamed patient becomes: the first by name of all who are one person. Cases of one person
/// must stay together, also those of a patient whose duplicate was removed.
fn persons(rows: &[Duplicate]) -> BTreeMap<String, String> {
    let same_person = |row: &&Duplicate| match row.action {
        DuplicateAction::Grouped => true,
        // That a label map was used twice makes nobody the same person.
        DuplicateAction::Removed => !matches!(row.kind, DuplicateKind::ExactLabel | DuplicateKind::NearLabel),
        DuplicateAction::Reported => false,
    };
    let mut groups: Groups<&str> = Groups::default();
    for row in rows.iter().filter(same_person) {
        groups.join(row.same_as_patient.as_str(), row.patient.as_str());
    }
    let first = |group: &[&str]| group.iter().min().map(|name| (*name).to_owned());
    groups
        .members()
        .iter()
        .filter_map(|group| Some((group, first(group)?)))
        .flat_map(|(group, first)| group.iter().map(move |name| ((*name).to_owned(), first.clone())))
        .filter(|(name, first)| name != first)
        .collect()
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
        .filter(|row| params.treatment(row.kind) == Treatment::Fail)
        .map(|row| format!("case `{}` {} case `{}`", row.case, row.kind.verb(), row.same_as))
        .collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(StageError::Data(listing(["duplicate", "duplicates"], &refused)))
    }
}

fn report(rows: &[Duplicate], removed: usize, renamed: usize, context: &StageContext) {
    const FACTS: [&str; 5] = [
        "duplicate images",
        "nearly duplicate images",
        "related images",
        "duplicate labels",
        "nearly duplicate labels",
    ];
    let counts: Vec<(&str, usize)> = DuplicateKind::ALL
        .iter()
        .zip(FACTS)
        .map(|(kind, fact)| (fact, rows.iter().filter(|row| row.kind == *kind).count()))
        .collect();
    for (fact, count) in &counts {
        context.fact(fact, *count);
    }
    context.fact("removed", removed);
    context.fact("joined", renamed);
    if rows.is_empty() {
        return;
    }
    let found: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(fact, count)| format!("{count} {fact}"))
        .collect();
    context.warn(format!(
        "{}: {removed} cases removed, {renamed} given to another patient with whom theirs is one person; see \
         `duplicates.csv`",
        found.join(", ")
    ));
}

/// One person with many cases makes any split uneven, and is seldom one person.
fn warn_of_large_groups(before: &CaseTable, after: &CaseTable, context: &StageContext) {
    let largest = |table: &CaseTable| {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for case in &table.cases {
            *sizes.entry(&case.patient).or_default() += 1;
        }
        sizes.into_iter().max_by_key(|(_, size)| *size).map(|(name, size)| (name.to_owned(), size))
    };
    let Some((name, size)) = largest(after) else { return };
    let own = before.cases.iter().filter(|case| case.patient == name).count();
    if size > own && size > 8 && size * 5 > after.cases.len() {
        context.warn(format!(
            "patient `{name}` now has {size} of {} cases: raise `similarity`, or treat `near` with `report`, if \
             these are not one person",
            after.cases.len()
        ));
    }
}

#[cfg(test)]
mod tests;
