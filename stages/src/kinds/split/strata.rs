//! What every part should have its share of: classes, sizes, sites.

use super::deal::Group;
use crate::artifacts::{Case, CaseTable, Part};
use crate::error::StageError;
use std::collections::{BTreeMap, BTreeSet};

const CLASS: &str = "class";
const MASK_SIZE: &str = "mask-size";
/// A column with more different numbers than this is cut into quarters.
const MANY: usize = 10;
const QUARTERS: usize = 4;

/// Adds what the column says about each group to its stratum: of words the most frequent, of numbers the quarter of
/// their mean. An error when no case has the column.
pub(super) fn refine(groups: &mut [Group], table: &CaseTable, column: &str) -> Result<(), StageError> {
    let value = |case: &Case| match column {
        CLASS => case.class.clone(),
        MASK_SIZE => case.label_foreground.map(|voxels| voxels.to_string()),
        other => case.info.get(other).cloned(),
    };
    let values: Vec<Option<String>> = table.cases.iter().map(value).collect();
    if values.iter().all(Option::is_none) && !table.cases.is_empty() {
        let mut known: BTreeSet<&str> =
            table.cases.iter().flat_map(|case| case.info.keys().map(String::as_str)).collect();
        if table.cases.iter().any(|case| case.class.is_some()) {
            known.insert(CLASS);
        }
        if table.cases.iter().any(|case| case.label_foreground.is_some()) {
            known.insert(MASK_SIZE);
        }
        let known: Vec<&str> = known.into_iter().collect();
        return Err(StageError::Data(format!(
            "cannot stratify by `{column}`: no case has it; the cases have `{}`",
            known.join("`, `")
        )));
    }
    let told: Vec<String> = match numbers(&values, column == MASK_SIZE) {
        Some(numbers) => quarters(groups, &numbers),
        None => groups.iter().map(|group| most_frequent(group, &values)).collect(),
    };
    for (group, told) in groups.iter_mut().zip(told) {
        if !group.stratum.is_empty() {
            group.stratum.push_str(", ");
        }
        group.stratum.push_str(&format!("{column} {told}"));
    }
    Ok(())
}

/// All values as numbers, if they are, and so many that each is rare.
fn numbers(values: &[Option<String>], always: bool) -> Option<Vec<Option<f64>>> {
    let parsed: Option<Vec<Option<f64>>> = values
        .iter()
        .map(|value| match value {
            None => Some(None),
            Some(text) => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Some),
        })
        .collect();
    let different: BTreeSet<&String> = values.iter().flatten().collect();
    parsed.filter(|_| always || different.len() > MANY)
}

/// The quarter, from 1, of the mean of each group among all groups that have one; `0` for the mean 0, which says that
/// there is nothing.
fn quarters(groups: &[Group], numbers: &[Option<f64>]) -> Vec<String> {
    let means: Vec<Option<f64>> = groups
        .iter()
        .map(|group| {
            let own: Vec<f64> = group.cases.iter().filter_map(|case| numbers[*case]).collect();
            (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
        })
        .collect();
    let mut sorted: Vec<f64> = means.iter().flatten().copied().filter(|mean| *mean != 0.0).collect();
    sorted.sort_by(f64::total_cmp);
    let quarter = |mean: f64| {
        let below = sorted.partition_point(|other| *other < mean);
        below * QUARTERS / sorted.len().max(1) + 1
    };
    means
        .into_iter()
        .map(|mean| match mean {
            None => "unknown".to_owned(),
            Some(0.0) => "0".to_owned(),
            Some(mean) => format!("quarter {}", quarter(mean)),
        })
        .collect()
}

/// The first in alphabetical order among equals.
fn most_frequent(group: &Group, values: &[Option<String>]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &group.cases {
        *counts.entry(values[*case].as_deref().unwrap_or("unknown")).or_default() += 1;
    }
    let most = counts.into_iter().rev().max_by_key(|(_, count)| *count);
    most.map_or_else(String::new, |(value, _)| value.to_owned())
}

/// Cases of each stratum and part.
fn counts<'a>(groups: &'a [Group], parts: &[Part]) -> BTreeMap<&'a str, BTreeMap<Part, usize>> {
    let mut counts: BTreeMap<&str, BTreeMap<Part, usize>> = BTreeMap::new();
    for group in groups {
        let stratum = counts.entry(&group.stratum).or_default();
        for case in &group.cases {
            *stratum.entry(parts[*case]).or_default() += 1;
        }
    }
    counts
}

/// The largest difference, over all parts and strata, between the share of a stratum in the part and in all cases.
pub(super) fn imbalance(groups: &[Group], parts: &[Part]) -> f64 {
    let mut sizes: BTreeMap<Part, usize> = BTreeMap::new();
    for part in parts {
        *sizes.entry(*part).or_default() += 1;
    }
    let mut largest = 0.0_f64;
    for own in counts(groups, parts).values() {
        let share = own.values().sum::<usize>() as f64 / parts.len() as f64;
        for (part, size) in &sizes {
            let here = own.get(part).copied().unwrap_or(0) as f64 / *size as f64;
            largest = largest.max((here - share).abs());
        }
    }
    (largest * 1e4).round() / 1e4
}

/// A line for each stratum: how many of its cases each part has.
pub(super) fn describe(groups: &[Group], parts: &[Part]) -> Vec<String> {
    let place = |part: &Part| match part {
        Part::Test => "test".to_owned(),
        Part::Fold(fold) => format!("fold {fold}"),
    };
    let line = |(stratum, own): (&str, BTreeMap<Part, usize>)| {
        let cases: Vec<String> = own.iter().map(|(part, count)| format!("{} {count}", place(part))).collect();
        format!("{stratum}: {}", cases.join(", "))
    };
    counts(groups, parts).into_iter().map(line).collect()
}
