//! Repeats between the parts that the authors of a data set made.

use super::*;
use crate::artifacts::{FoldTable, Part};
use crate::kinds::split::{self, Split};

/// The table with each case in the part that `parts` gives it.
fn told(mut table: CaseTable, column: &str, parts: &[(&str, &str)]) -> CaseTable {
    for (id, part) in parts {
        let case = table.cases.iter_mut().find(|case| case.id == *id).expect("the case is there");
        case.info.insert(column.into(), (*part).into());
    }
    table
}

/// Cases 1, 3 and 5 show one image, 2 and 4 another, each its own patient; `parts` are those of 1 to 5.
fn check(parts: [&str; 5], kept: &[&str]) {
    let space = TestSpace::new();
    let cases = [("c1", 1, 7), ("c2", 2, 60), ("c3", 1, 7), ("c4", 2, 60), ("c5", 1, 7)];
    let mut table = import(&space, &cases);
    table.cases.iter_mut().for_each(|case| case.patient.clone_from(&case.id));
    let names = ["c1", "c2", "c3", "c4", "c5"];
    let table = told(table, "split", &names.into_iter().zip(parts).collect::<Vec<_>>());
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(ids(&run), kept, "{parts:?}");
    for row in run.load(&DUPLICATES).rows {
        assert!(kept.contains(&row.same_as.as_str()) && !kept.contains(&row.case.as_str()), "{row:?}");
    }
}

#[test]
fn the_repeat_that_goes_is_never_the_one_of_a_test_part() {
    check(["train", "train", "train", "train", "train"], &["c1", "c2"]);
    check(["train", "train", "test", "train", "train"], &["c2", "c3"]);
    check(["train", "val", "Validation", "TEST", "test"], &["c4", "c5"]);
    check(["val", "train", "train", "validation", "train"], &["c1", "c4"]);
    // A copy within the test part goes like any other.
    check(["train", "train", "test", "test", "test"], &["c3", "c4"]);
    // What is no part says nothing.
    check(["A", "B", "C", "A", "B"], &["c1", "c2"]);
}

#[test]
fn another_column_says_the_parts_where_it_is_named() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c3", 1, 7)]);
    let table = told(table, "authors", &[("c1", "train"), ("c3", "test")]);
    assert_eq!(ids(&dedup(&space, &table, json!({})).expect("goes through")), ["c1"]);
    assert_eq!(ids(&dedup(&space, &table, json!({ "official": "authors" })).expect("goes through")), ["c3"]);
    let error = dedup(&space, &table, json!({ "official": "fold" })).expect_err("nobody has it").to_string();
    assert_eq!(error, "no case has the column `fold` that `official` names");
}

#[test]
fn labels_used_twice_keep_the_test_case_too() {
    let space = TestSpace::new();
    let table = import(&space, &[("c1", 1, 7), ("c3", 2, 7), ("c5", 3, 99)]);
    let table = told(table, "split", &[("c1", "train"), ("c3", "test"), ("c5", "train")]);
    let run = dedup(&space, &table, json!({ "labels": "remove" })).expect("the dedup goes through");
    assert_eq!(ids(&run), ["c3", "c5"]);
}

#[test]
fn after_that_an_official_split_is_whole_and_proved() {
    let space = TestSpace::new();
    let cases = [("c1", 1, 7), ("c3", 3, 60), ("c5", 5, 90), ("c7", 1, 120), ("c9", 9, 150)];
    let table = import(&space, &cases);
    let parts = [("c1", "train"), ("c3", "train"), ("c5", "train"), ("c7", "test"), ("c9", "test")];
    let table = told(table, "split", &parts);
    let split = |table: &CaseTable, duplicates: &DuplicateTable| {
        let inputs = [space.stored(table), space.stored(duplicates)];
        let params = json!({ "folds": 2, "official": {} });
        space.run::<Split>(params, &[("cases", &inputs[0]), ("duplicates", &inputs[1])])
    };
    let unnoticed = DuplicateTable { rows: Vec::new() };
    let error = split(&table, &unnoticed).expect_err("c1 and c7 are one image").to_string();
    assert!(error.contains("the same image: case `c1` in fold") && error.contains("`c7` in the test set"));
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    let folds: FoldTable =
        split(&run.load(&UNIQUE), &run.load(&DUPLICATES)).expect("no leak").load(&split::FOLDS);
    let test: Vec<&str> =
        folds.rows.iter().filter(|row| row.part == Part::Test).map(|row| row.id.as_str()).collect();
    assert_eq!(test, ["c7", "c9"]);
}
