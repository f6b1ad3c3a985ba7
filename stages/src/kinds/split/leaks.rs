//! The proof that nothing is on two sides: no patient, no image, no duplicate and no relative.

use super::GroupBy;
use crate::artifacts::{CaseTable, DuplicateKind, DuplicateTable, FoldRow, FoldTable, Part};
use crate::error::StageError;
use crate::kinds::listing::listing;
use std::collections::BTreeMap;

/// Fails with all that is on two sides.
pub(super) fn check(
    table: &CaseTable,
    folds: &FoldTable,
    duplicates: Option<&DuplicateTable>,
    group_by: GroupBy,
) -> Result<(), StageError> {
    let mut leaks = Vec::new();
    let mut patients: BTreeMap<&str, &FoldRow> = BTreeMap::new();
    let mut images: BTreeMap<_, &FoldRow> = BTreeMap::new();
    let mut places: BTreeMap<&str, &FoldRow> = BTreeMap::new();
    for (case, row) in table.cases.iter().zip(&folds.rows) {
        places.insert(&case.id, row);
        let first = *patients.entry(&case.patient).or_insert(row);
        if group_by == GroupBy::Patient && first.part != row.part {
            leaks.push(format!("patient `{}`: {} and {}", case.patient, place(first), place(row)));
        }
        let first = *images.entry(case.voxels).or_insert(row);
        if first.part != row.part {
            leaks.push(format!("the same image: {} and {}", place(first), place(row)));
        }
    }
    // Equal images were told by their digest. That two label maps are equal is a mistake in one of them, and says
    // nothing about the images.
    let found = duplicates.iter().flat_map(|duplicates| &duplicates.rows);
    for row in found.filter(|row| matches!(row.kind, DuplicateKind::NearImage | DuplicateKind::Related)) {
        // Where `dedup` removed one of the two, the other is alone.
        if let (Some(one), Some(other)) = (places.get(row.same_as.as_str()), places.get(row.case.as_str()))
            && one.part != other.part
        {
            leaks.push(format!("{} {} {}", place(other), row.kind.verb(), place(one)));
        }
    }
    if leaks.is_empty() {
        return Ok(());
    }
    Err(StageError::Data(format!(
        "{}\nlet a `dedup` stage before the split remove or group what is the same, and split by patient; \
         what spans an official border only `remove` helps",
        listing(["leak between the parts", "leaks between the parts"], &leaks)
    )))
}

fn place(row: &FoldRow) -> String {
    match row.part {
        Part::Test => format!("case `{}` in the test set", row.id),
        Part::Fold(fold) => format!("case `{}` in fold {fold}", row.id),
    }
}
