//! A cohort with everything wrong that a phantom can have: all of it is found, and nothing else.

use super::*;

#[test]
fn all_that_was_planted_among_volumes_is_found_and_nothing_else() {
    check_all([20, 24, 20]);
}

#[test]
fn all_that_was_planted_among_flat_images_is_found_and_nothing_else() {
    check_all([1, 64, 72]);
}

fn check_all(shape: [usize; 3]) {
    let space = TestSpace::new();
    let planted = json!({ "duplicates": 2, "near": 4, "labels": 2, "defects": 3, "scans": true });
    let phantom = json!({ "cases": 16, "shape": shape, "planted": planted });
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

#[test]
fn all_that_was_planted_among_images_with_classes_is_found_and_nothing_else() {
    let space = TestSpace::new();
    let planted = json!({ "duplicates": 3, "near": 4, "labels": 2, "defects": 2 });
    let params =
        json!({ "from": "phantom", "archive": "x.npz", "phantom": { "cases": 60, "planted": planted } });
    let run = space.run::<Import>(params, &[]).expect("the import goes through");
    let table = run.load(&import::CASES);
    // Of the two defects the file that is cut off is excluded, the constant image is kept with a warning.
    assert_eq!(table.cases.len(), 60 + 3 + 4 + 2 + 1);
    let told: Vec<String> = run
        .load(&import::CHECKS)
        .findings
        .into_iter()
        .map(|found| found.case + " " + &found.problem)
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("train_00051 cannot be read: ")
            && told[1].starts_with("train_00052 image channel 0 is 100")
    );
    let rows =
        dedup(&space, &table, json!({ "exact": "report" })).expect("goes through").load(&DUPLICATES).rows;
    let numbers = |kind: DuplicateKind| -> BTreeSet<String> {
        let of_kind = rows.iter().filter(|row| row.kind == kind);
        of_kind.flat_map(|row| [row.case.clone(), row.same_as.clone()]).filter(|id| is_planted(id)).collect()
    };
    // 42 of 60 images are for training; then come three copies, four changed ones, and two in another class.
    let from = |start: usize, count: usize| -> BTreeSet<String> {
        (start..start + count).map(|number| format!("train_{number:05}")).collect()
    };
    assert_eq!(numbers(DuplicateKind::ExactImage), &from(42, 3) | &from(49, 2));
    assert_eq!(numbers(DuplicateKind::NearImage), from(45, 4));
    assert_eq!(rows.len(), 3 + 4 + 2, "{rows:?}");
    let wrong = rows.iter().filter(|row| row.remark == "the classes differ: one of the two is wrong");
    assert_eq!(wrong.count(), 2);
}

fn is_planted(id: &str) -> bool {
    id.strip_prefix("train_").is_some_and(|number| number.parse::<usize>().expect("a number") >= 42)
}
