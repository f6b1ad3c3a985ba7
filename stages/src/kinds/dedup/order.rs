//! Which of several cases that show the same is kept.

use super::Params;
use crate::artifacts::{CaseTable, OfficialPart};
use crate::error::StageError;

/// A case table, and in which order its cases are kept: those of an official test part first, then those of its
/// validation part, then all others; by id among equals. Whoever scores against a published test set scores against
/// all of it, and what a network must not have seen leaves its training set.
pub(super) struct Ordered<'a> {
    pub(super) table: &'a CaseTable,
    parts: Vec<Option<OfficialPart>>,
}

impl<'a> Ordered<'a> {
    /// By the official column of `params`, or else by `split` where that names a part.
    pub(super) fn new(table: &'a CaseTable, params: &Params) -> Result<Self, StageError> {
        if let Some(column) = &params.official
            && !table.cases.iter().any(|case| case.info.contains_key(column))
        {
            return Err(StageError::Data(format!("no case has the column `{column}` that `official` names")));
        }
        let column = params.official.as_deref().unwrap_or(OfficialPart::COLUMN);
        let part = |text: &String| OfficialPart::of(text);
        let parts = table.cases.iter().map(|case| case.info.get(column).and_then(part)).collect();
        Ok(Self { table, parts })
    }

    /// What to sort indices of cases by: the first is kept.
    pub(super) fn key(&self, case: usize) -> (std::cmp::Reverse<Option<OfficialPart>>, usize) {
        (std::cmp::Reverse(self.parts[case]), case)
    }

    /// The same cases, those to be kept first.
    pub(super) fn sorted(&self, mut cases: Vec<usize>) -> Vec<usize> {
        cases.sort_by_key(|case| self.key(*case));
        cases
    }
}
