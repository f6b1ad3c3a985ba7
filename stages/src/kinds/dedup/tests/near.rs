//! Copies that were changed, and what only looks like one.

use super::*;
use std::sync::LazyLock;

const SHAPE: [usize; 3] = [24, 28, 26];

/// Smooth blobs: an image with structure at the scale of organs.
fn blobs(seed: u64, [z, y, x]: [f64; 3]) -> f32 {
    let mut value = 0.0;
    for blob in 0..30_u64 {
        let part = |which: u64, size: f64| size * f64::from(noise(seed, 4 * blob + which)) / 4096.0;
        let at = [part(0, 24.0), part(1, 28.0), part(2, 26.0)];
        let square = (z - at[0]).powi(2) + (y - at[1]).powi(2) + (x - at[2]).powi(2);
        let radius = 2.0 + part(3, 2.5);
        value += if blob % 2 == 0 { 1.0 } else { -0.7 } * (-square / (2.0 * radius * radius)).exp();
    }
    (600.0 + 400.0 * value) as f32
}

fn image(shape: [usize; 3], value: impl Fn([usize; 3]) -> f32) -> Vec<f32> {
    let [depth, height, width] = shape;
    let mut voxels = Vec::new();
    for z in 0..depth {
        for y in 0..height {
            for x in 0..width {
                voxels.push(value([z, y, x]));
            }
        }
    }
    voxels
}

fn as_f64(at: [usize; 3]) -> [f64; 3] {
    at.map(|at| at as f64)
}

/// Imports ten different images and a copy of the third, `copy`, made by `change`; each is a patient of its own.
fn with_copy(space: &TestSpace, shape: [usize; 3], change: impl Fn([usize; 3]) -> f32) -> CaseTable {
    static IMAGES: LazyLock<Vec<Vec<f32>>> =
        LazyLock::new(|| (0..10).map(|seed| image(SHAPE, |at| blobs(seed, as_f64(at)))).collect());
    let root = space.path().join("data");
    for (number, voxels) in IMAGES.iter().enumerate() {
        let name = format!("c{}", 2 * number + 1);
        write(&root, &name, SHAPE, voxels.clone(), vec![0; 24 * 28 * 26]);
    }
    write(&root, "c99", shape, image(shape, change), vec![0; shape.iter().product()]);
    import_folder(space, &root)
}

/// Finds the copy of image 3 (`c7`) and nothing else.
#[track_caller]
fn check(what: &str, shape: [usize; 3], change: impl Fn([usize; 3]) -> f32) -> Duplicate {
    let space = TestSpace::new();
    let table = with_copy(&space, shape, change);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(pairs(&run), [(DuplicateKind::NearImage, "c99".into(), "c7".into())], "{what}");
    let unique = run.load(&UNIQUE);
    assert_eq!(unique.get("c99").expect("kept").patient, unique.get("c7").expect("kept").patient);
    run.load(&DUPLICATES).rows.remove(0)
}

#[test]
fn copies_are_found_whatever_was_done_to_them() {
    let of = |at: [usize; 3]| blobs(3, as_f64(at));
    check("rescaled", SHAPE, |at| 0.013 * of(at) - 4.0);
    check("inverted along x", SHAPE, |[z, y, x]| of([z, y, 25 - x]));
    let mirrored = check("mirrored along z and y", SHAPE, |[z, y, x]| of([23 - z, 27 - y, x]));
    assert_eq!(mirrored.remark, "mirrored along z, y");
    assert!(mirrored.runner_up.is_none_or(|runner_up| runner_up < 0.8), "{mirrored:?}");
    check("noise of a tenth of the range", SHAPE, |at| {
        of(at) + (noise(77, ((at[0] * 28 + at[1]) * 26 + at[2]) as u64) - 2048.0) / 4096.0 * 150.0
    });
    check("shifted", SHAPE, |[z, y, x]| blobs(3, [z as f64 + 1.0, y as f64 - 1.0, x as f64 + 1.0]));
    let coarse = check("resampled", [18, 21, 20], |[z, y, x]| {
        blobs(3, [z as f64 * 4.0 / 3.0, y as f64 * 4.0 / 3.0, x as f64 * 1.3])
    });
    assert_eq!(coarse.remark, "18×21×20 voxels in place of 24×28×26");
    check("all of it", [28, 32, 30], |[z, y, x]| {
        let at = [z as f64 / 28.0 * 24.0, 27.0 - y as f64 / 32.0 * 28.0, x as f64 / 30.0 * 26.0 + 1.0];
        3.0 * blobs(3, at) + noise(78, ((z * 32 + y) * 30 + x) as u64) / 4096.0 * 100.0
    });
}

#[test]
fn another_image_is_none() {
    let space = TestSpace::new();
    let table = with_copy(&space, SHAPE, |at| blobs(31, as_f64(at)));
    let run = dedup(&space, &table, json!({ "near": "fail" })).expect("nothing is a duplicate");
    assert_eq!(pairs(&run), []);
}

#[test]
fn a_near_duplicate_is_removed_reported_or_fails_the_stage_as_asked() {
    let space = TestSpace::new();
    let table = with_copy(&space, SHAPE, |at| 2.0 * blobs(3, as_f64(at)) + 1.0);
    let run = dedup(&space, &table, json!({ "near": "remove" })).expect("the dedup goes through");
    assert!(!ids(&run).contains(&"c99".to_owned()) && ids(&run).len() == 10);
    let run = dedup(&space, &table, json!({ "near": "report" })).expect("the dedup goes through");
    assert_eq!(run.load(&UNIQUE), table);
    let error = dedup(&space, &table, json!({ "near": "fail" })).expect_err("a duplicate").to_string();
    assert_eq!(error, "1 duplicate:\n  case `c99` holds nearly the image of case `c7`");
}

#[test]
fn constant_images_are_no_near_duplicates() {
    let space = TestSpace::new();
    let root = space.path().join("data");
    for (name, value) in [("c1", 1.0), ("c3", 2.0), ("c5", 3.0)] {
        write(&root, name, [5, 5, 5], vec![value; 125], vec![0; 125]);
    }
    let table = import_folder(&space, &root);
    let run = dedup(&space, &table, json!({ "near": "fail", "related": "fail" })).expect("nothing to see");
    assert_eq!(ids(&run).len(), 3);
}

/// Whole numbers times `scale`.
fn stepped(seed: u64, scale: f64) -> Vec<f32> {
    image(SHAPE, |at| (f64::from((blobs(seed, as_f64(at)) / 4.0).round()) * scale) as f32)
}

#[test]
fn images_scaled_together_are_related() {
    let space = TestSpace::new();
    let root = space.path().join("data");
    let scales = [5.98706, 5.98706, 5.9602, 8.2341, 1.0, 1.0, 0.5, 0.5];
    for (seed, scale) in scales.into_iter().enumerate() {
        let name = format!("c{}", 2 * seed + 1);
        write(&root, &name, SHAPE, stepped(seed as u64, scale), vec![0; 24 * 28 * 26]);
    }
    let table = import_folder(&space, &root);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    assert_eq!(pairs(&run), [(DuplicateKind::Related, "c3".into(), "c1".into())]);
    let row = &run.load(&DUPLICATES).rows[0];
    assert!(row.score > 1.0 - 2e-6, "{row:?}");
    assert!((row.runner_up.expect("there are others") - 5.9602 / 5.98706).abs() < 1e-5, "{row:?}");
    assert!(row.remark.ends_with("multiples of 5.98706"), "{row:?}");
    let unique = run.load(&UNIQUE);
    assert_eq!(unique.get("c3").expect("kept").patient, "c1-2");
    assert_eq!(unique.patients().len(), 7);
}

#[test]
fn a_step_that_many_share_is_told_and_no_evidence() {
    let space = TestSpace::new();
    let root = space.path().join("data");
    for seed in 0..9_u64 {
        let name = format!("c{}", 2 * seed + 1);
        write(&root, &name, SHAPE, stepped(seed, 2.441_406), vec![0; 24 * 28 * 26]);
    }
    let table = import_folder(&space, &root);
    let run = dedup(&space, &table, json!({ "related": "fail" })).expect("nothing is related");
    assert_eq!(run.load(&UNIQUE), table);
    assert_eq!(
        run.warnings,
        [
            "9 cases share the intensity step 2.441406: too many to be one person, so it is not taken as evidence"
        ]
    );
}

#[test]
fn three_copies_are_one_group() {
    let space = TestSpace::new();
    with_copy(&space, SHAPE, |at| 2.0 * blobs(3, as_f64(at)) + 1.0);
    let root = space.path().join("data");
    let mirrored = image(SHAPE, |[z, y, x]| blobs(3, as_f64([z, y, 25 - x])));
    write(&root, "c97", SHAPE, mirrored, vec![0; 24 * 28 * 26]);
    let table = import_folder(&space, &root);
    let unique = dedup(&space, &table, json!({})).expect("the dedup goes through").load(&UNIQUE);
    let patients: BTreeSet<&str> =
        ["c7", "c97", "c99"].iter().map(|id| unique.get(id).expect("kept").patient.as_str()).collect();
    assert_eq!(patients.into_iter().collect::<Vec<_>>(), ["c7-8"]);
    assert_eq!(unique.patients().len(), 10);
}

#[test]
fn copies_of_an_image_share_their_label_map_and_time_points_a_file() {
    let space = TestSpace::new();
    let root = space.path().join("data");
    let voxels = |seed: u64| image(SHAPE, |at| blobs(seed, as_f64(at)));
    let mut label = vec![0; SHAPE.iter().product()];
    label[100] = 1;
    write(&root, "a_1", SHAPE, voxels(1), label.clone());
    write(&root, "a_3", SHAPE, voxels(1).iter().map(|value| 0.5 * value + 100.0).collect(), label.clone());
    write(&root, "a_5", SHAPE, voxels(2), label);
    write(&root, "a_7", SHAPE, voxels(4), vec![0; SHAPE.iter().product()]);
    let mut table = import_folder(&space, &root);
    let found =
        |table: &CaseTable, params: Value| pairs(&dedup(&space, table, params).expect("goes through"));
    let pair = |kind, case: &str, same_as: &str| (kind, case.to_owned(), same_as.to_owned());
    let near = pair(DuplicateKind::NearImage, "a_3", "a_1");
    let label = pair(DuplicateKind::ExactLabel, "a_5", "a_1");
    assert_eq!(found(&table, json!({})), [near.clone(), label.clone()]);
    // Nobody looked whether the images are alike.
    let labels = [pair(DuplicateKind::ExactLabel, "a_3", "a_1"), label];
    assert_eq!(found(&table, json!({ "near": "ignore" })), labels);
    // One file for two cases is no accident.
    table.cases[2].label = table.cases[0].label.clone();
    assert_eq!(found(&table, json!({})), [near]);
}
