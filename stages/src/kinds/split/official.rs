//! The parts that the authors of a data set made.

use super::deal::Group;
use super::{Params, deal_folds};
use crate::artifacts::{CaseTable, OfficialPart as Told, Part};
use crate::error::StageError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Official {
    /// The column of the case table that holds `train`, `val` or `test` for each case.
    #[serde(default = "split_column")]
    pub column: String,
    /// What of it is taken.
    #[serde(default)]
    pub take: Take,
}

fn split_column() -> String {
    Told::COLUMN.into()
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// The test set; all others are dealt into `folds`.
    #[default]
    Test,
    /// All parts: the validation cases are fold 0 and the training cases fold 1. Train with `fold: 0`.
    All,
}

/// The part of every case, by index.
pub(super) fn parts(
    table: &CaseTable,
    groups: &[Group],
    official: &Official,
    params: &Params,
    seed: u64,
) -> Result<Vec<Part>, StageError> {
    let told: Result<Vec<Told>, StageError> = table
        .cases
        .iter()
        .map(|case| {
            let value = case.info.get(&official.column).map_or("", String::as_str);
            Told::of(value).ok_or_else(|| {
                StageError::Data(format!(
                    "column `{}` of case `{}` holds `{value}`: expected `train`, `val` or `test`",
                    official.column, case.id
                ))
            })
        })
        .collect();
    let told = told?;
    if official.take == Take::All {
        let part = |told: Told| match told {
            Told::Test => Part::Test,
            Told::Validation => Part::Fold(0),
            Told::Train => Part::Fold(1),
        };
        return Ok(told.into_iter().map(part).collect());
    }
    let mut parts = vec![Part::Test; table.cases.len()];
    // Where only some cases of a group are official test cases the leak check tells which.
    let in_test = |group: &&Group| group.cases.iter().all(|case| told[*case] == Told::Test);
    let (test, rest): (Vec<&Group>, Vec<&Group>) = groups.iter().partition(in_test);
    deal_folds(&rest, test.len(), params, seed, &mut parts)?;
    for (part, told) in parts.iter_mut().zip(&told) {
        if *told == Told::Test {
            *part = Part::Test;
        }
    }
    Ok(parts)
}
