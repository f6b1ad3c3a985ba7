//! A cohort with everything wrong that a phantom can have: all of it is found, and nothing else.

use super::*;

#[test]
fn all_that_was_planted_is_found_and_nothing_else() {
    let space = TestSpace::new();
    let planted = json!({ "duplicates": 2, "near": 4, "labels": 2, "defects": 3, "scans": true });
    let phantom = json!({ "cases": 16, "shape": [20, 24, 20], "planted": planted });
    let run = space
        .run::<Import>(json!({ "from": "phantom", "phantom": phantom }), &[])
        .expect("the import goes through");
    let table = run.load(&import::CASES);
    // Sound cases 1 to 16, copies from 17 on, every second number; the three defects are excluded.
    assert_eq!(table.cases.len(), 16 + 8);
    let run = dedup(&space, &table, json!({ "exact": "group" })).expect("the dedup goes through");
    let source = |number: usize| format!("phantom_{:03}", (7 * number + 1) % 16 + 1);
    let name = |number: usize| format!("phantom_{:03}", 17 + 2 * number);
    let rows = run.load(&DUPLICATES).rows;
    let of = |kind: DuplicateKind| -> BTreeSet<(String, String)> {
        rows.iter()
            .filter(|row| row.kind == kind)
            .map(|row| (row.case.clone(), row.same_as.clone()))
            .collect()
    };
    let pairs = |numbers: std::ops::Range<usize>| -> BTreeSet<(String, String)> {
        numbers.map(|number| (name(number), source(number))).collect()
    };
    assert_eq!(of(DuplicateKind::ExactImage), pairs(0..2));
    assert_eq!(of(DuplicateKind::NearImage), pairs(2..6));
    let labels: BTreeSet<_> = of(DuplicateKind::ExactLabel);
    assert_eq!(labels, pairs(6..8));
    // The two sides of each of the eight patients, and what shares their steps.
    let sides = |pair: &(String, String)| {
        let number = |name: &str| -> usize { name[8..].parse().expect("a number") };
        number(&pair.1) % 2 == 1 && number(&pair.0) == number(&pair.1) + 1
    };
    assert_eq!(of(DuplicateKind::Related).iter().filter(|pair| sides(pair)).count(), 8);
}
