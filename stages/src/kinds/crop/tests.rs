use super::Crop;
use crate::testing::problems;
use serde_json::{Value, json};

#[track_caller]
fn check(params: Value, expected: &[(&str, &str)]) {
    let found = problems::<Crop>(params);
    let found: Vec<_> = found.iter().map(|problem| (problem.parameter, problem.message.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn parameters_that_cannot_be_used_are_told_all_at_once() {
    check(json!({}), &[]);
    check(
        json!({ "region": "nonzero", "margin_mm": 3, "spacing_mm": [1, 1, 0.5], "normalize": "none" }),
        &[],
    );
    check(json!({ "spacing_mm": [1, 0, 1] }), &[("spacing_mm", "[1.0, 0.0, 1.0] is no voxel size")]);
    check(
        json!({ "spacing_mm": [1, 1, -2], "margin_mm": -1 }),
        &[("spacing_mm", "[1.0, 1.0, -2.0] is no voxel size"), ("margin_mm", "-1 is no margin")],
    );
    check(
        json!({ "clip": { "window": [240, -160] }, "normalize": "none", "figures": "dataset" }),
        &[
            ("clip", "240 to -160 is no window"),
            ("figures", "the figures of a data set scale every voxel of every image"),
        ],
    );
    check(
        json!({ "clip": { "percentiles": [0.5, 101] } }),
        &[("clip", "0.5 and 101 are no two percentiles")],
    );
    check(json!({ "margin_mm": 2 }), &[("margin_mm", "a margin of 2 mm around the whole image is nothing")]);
}

#[test]
fn padding_has_bounds() {
    check(json!({ "pad_to": [1, 64, 2048] }), &[]);
    check(
        json!({ "pad_to": [0, 64, 64] }),
        &[("pad_to", "[0, 64, 64] is not within 1 to 2048 voxels along each axis")],
    );
    check(
        json!({ "pad_to": [1, 1, 5000] }),
        &[("pad_to", "[1, 1, 5000] is not within 1 to 2048 voxels along each axis")],
    );
}

#[test]
fn the_label_cannot_decide_the_region() {
    for region in ["foreground", "label"] {
        let error =
            serde_json::from_value::<super::Params>(json!({ "region": region })).expect_err("no such region");
        assert!(error.to_string().contains("expected `whole` or `nonzero`"), "{error}");
    }
}
