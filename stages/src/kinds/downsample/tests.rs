use super::{Downsample, VOLUMES};
use crate::kinds::crop::Crop;
use crate::kinds::prepare::cohort::{Cohort, image, turned};
use crate::testing::problems;
use pipe_imaging::{Geometry, Image};
use serde_json::{Value, json};

#[track_caller]
fn check(params: Value, expected: &[&str]) {
    let found = problems::<Downsample>(params);
    assert_eq!(found.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(), expected);
}

#[test]
fn exactly_one_of_factor_and_spacing_is_needed() {
    check(json!({ "factor": 1 }), &[]);
    check(json!({ "spacing_mm": [2, 2, 2] }), &[]);
    check(json!({}), &["how far to go is not said"]);
    check(
        json!({ "factor": 2, "spacing_mm": [2, 2, 2] }),
        &["2 and `spacing_mm` [2.0, 2.0, 2.0] both say how far to go"],
    );
    check(json!({ "factor": 0.5 }), &["0.5 does not make a volume smaller"]);
    check(json!({ "spacing_mm": [2, 2, 0] }), &["[2.0, 2.0, 0.0] is no voxel size"]);
}

#[test]
fn at_factor_two_a_voxel_is_the_mean_of_eight() {
    let grid = Geometry::with_spacing([2, 2, 4], [1.0; 3]);
    let values = vec![1.0, 2.0, 9.0, 0.0, 3.0, 4.0, 0.0, 0.0, 5.0, 6.0, 0.0, 0.0, 7.0, 8.0, 0.0, 7.0];
    let mut cohort = Cohort::new();
    cohort.add("c", &[&Image::from_vec(values, 1, grid).expect("16 voxels")], None);
    let run =
        cohort.run::<Downsample>(json!({ "factor": 2, "normalize": "none" })).expect("downsample works");
    let volumes = run.load(&VOLUMES);
    assert_eq!(volumes.image("c").expect("image").as_slice(), [4.5, 2.0]);
    assert_eq!(volumes.info.preparation.spacing_mm, Some([2.0; 3]));
    assert_eq!(volumes.row("c").expect("row").spacing_mm, [2.0; 3]);
}

#[test]
fn the_median_voxel_is_measured_on_axes_turned_to_ras() {
    let mut cohort = Cohort::new();
    // Upright, both have voxels of 3, 2 and 1 mm along z, y and x.
    let upright = Geometry::with_spacing([4, 6, 8], [3.0, 2.0, 1.0]);
    let turned = turned([8, 4, 6], [1.0, 2.0, 3.0]);
    cohort.add("a", &[&image(&upright, 1)], None);
    cohort.add("b", &[&image(&turned, 2)], None);
    let run = cohort.run::<Downsample>(json!({ "factor": 2 })).expect("downsample works");
    let volumes = run.load(&VOLUMES);
    assert_eq!(volumes.info.preparation.spacing_mm, Some([6.0, 4.0, 2.0]));
    for id in ["a", "b"] {
        assert_eq!(volumes.row(id).expect("row").shape, [2, 3, 4], "case {id}");
    }
    assert_eq!(run.facts["median shape"], json!([2.0, 3.0, 4.0]));
    assert_eq!(run.facts["median spacing mm"], json!([6.0, 4.0, 2.0]));
}

#[test]
fn one_odd_case_does_not_move_the_voxel_size_of_the_others() {
    let mut cohort = Cohort::of(5);
    let params = || json!({ "factor": 1.5 });
    assert_eq!(cohort.run::<Downsample>(params()).expect("downsample works").memo_misses, 5);
    cohort.add("odd", &[&image(&Geometry::with_spacing([9, 9, 9], [0.1; 3]), 1)], None);
    let run = cohort.run::<Downsample>(params()).expect("downsample works");
    assert_eq!(run.memo_misses, 1);
    assert_eq!(run.load(&VOLUMES).info.preparation.spacing_mm, Some([1.5; 3]));
}

#[test]
fn factor_one_is_crop_at_the_median_voxel() {
    let cohort = Cohort::of(3);
    let small =
        cohort.run::<Downsample>(json!({ "factor": 1 })).expect("downsample works").content("volumes");
    let cropped =
        cohort.run::<Crop>(json!({ "spacing_mm": [1, 1, 1] })).expect("crop works").content("volumes");
    assert_eq!(small, cropped);
}

#[test]
fn an_orientation_that_is_none_is_told_with_its_case() {
    for orientation in ["RAR", "RA", "", "XYZ", "RASL"] {
        let mut cohort = Cohort::of(1);
        cohort.table.cases[0].orientation = orientation.into();
        let error = cohort.run::<Downsample>(json!({ "factor": 2 })).expect_err("no orientation");
        assert_eq!(error.to_string(), format!("case `c000` has `{orientation}` for an orientation"));
    }
}
