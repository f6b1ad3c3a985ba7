//! `pipe evaluate`: folders of label maps, outside of any pipeline.

use crate::space::{Report, TestSpace};
use crate::volume::nifti;

/// A row of voxels of 2 mm along x.
fn row(voxels: &[u8]) -> Vec<u8> {
    nifti([voxels.len(), 1, 1], [2.0, 1.0, 1.0], voxels)
}

/// Three cases of two patients; label 2 is missed in the last.
fn folders() -> TestSpace {
    let space = TestSpace::new("");
    for (name, reference, prediction) in [
        ("c_1", [0, 1, 1, 0, 2, 2], [0, 1, 1, 0, 2, 2]),
        ("c_2", [0, 1, 1, 0, 2, 2], [0, 1, 0, 0, 2, 0]),
        ("c_3", [0, 1, 1, 0, 2, 2], [0, 1, 1, 0, 0, 0]),
    ] {
        space.write(&format!("truth/{name}.nii"), row(&reference));
        space.write(&format!("found/{name}.nii"), row(&prediction));
    }
    space
}

#[track_caller]
fn evaluate(space: &TestSpace, arguments: &[&str]) -> Report {
    space.pipe(&[&["evaluate", "found", "truth"], arguments].concat())
}

#[test]
fn a_folder_is_scored_against_another() {
    let space = folders();
    let report = evaluate(&space, &["--labels", "1=liver,2=tumour", "--patient", "id-pairs", "-o", "out"]);
    report.code(0);
    for line in [
        "3 cases of 2 patients, definition deepmind, empty masks worst",
        // 1, 2/3 and 1; 1, 2/3 and 0.
        "dice                  liver      3     0.8889",
        "dice                  tumour     3     0.5556",
        "tumour: in both 2, missed 1, made up 0, in neither 0",
        "mean foreground Dice 0.7222 (",
    ] {
        report.prints(line);
    }
    let rows = space.read("out/metrics.csv");
    // Six voxels of 2 mm in a row are 12 mm long.
    assert!(rows.contains("\nc_3,c_3-4,2,tumour,hd95_mm,12.0,true\n"), "{rows}");
    assert!(space.read("out/summary.json").contains("\"definition\": \"deepmind\""));
}

#[test]
fn machines_read_json_and_choose_rules() {
    let space = folders();
    let arguments = [
        "--json",
        "--definition",
        "monai",
        "--metrics",
        "dice,nsd",
        "--tolerance",
        "0,2=4",
        "--group",
        "all=1+2",
    ];
    let report = evaluate(&space, &arguments);
    report.code(0);
    let summary: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(summary["rules"]["tolerance_mm"], serde_json::json!({ "1": 0.0, "2": 4.0, "all": 0.0 }));
    assert_eq!(summary["metrics"].as_array().unwrap().len(), 6);
    assert_eq!(summary["labels"][2]["name"], "all");
    let mean = summary["mean_foreground_dice"].as_f64().unwrap();
    assert!((mean - 13.0 / 18.0).abs() < 1e-15, "{mean}: 8/9 and 5/9");
}

#[test]
fn other_predictions_are_compared_patient_by_patient() {
    let space = folders();
    let report = space.pipe(&["evaluate", "truth", "truth", "--baseline", "found", "--metrics", "dice"]);
    report.code(0);
    // Better in one of three patients, equal in two; then in two, equal in one.
    for line in [
        "dice                  1           1      0      2     +0.1111",
        "dice                  2           2      0      1     +0.4444",
    ] {
        report.prints(line);
    }
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let space = folders();
    space.write("out/mine.txt", "");
    let refused = evaluate(&space, &["-o", "out"]);
    refused.code(2);
    assert!(
        refused.stderr.contains("`out` is not empty") && refused.stderr.contains("--force"),
        "{}",
        refused.stderr
    );
    assert_eq!(space.files("out"), ["mine.txt"]);
    evaluate(&space, &["-o", "out", "--force"]).code(0);
    assert_eq!(space.files("out"), ["metrics.csv", "mine.txt", "summary.json"]);
}

#[test]
fn what_cannot_be_scored_is_said() {
    #[track_caller]
    fn check(arguments: &[&str], expected: &[&str]) {
        let report = evaluate(&folders(), arguments);
        report.code(2);
        assert_eq!(report.stdout, "");
        for text in expected {
            report.says(text);
        }
    }
    check(&["--metrics", "dise"], &["`dise` is no metric", "`dice`"]);
    check(&["--definition", "deepmint"], &["`deepmint` is no definition", "`deepmind`"]);
    check(&["--definition", "medpy"], &["`nsd` does not exist in `definition: medpy`"]);
    check(&["--tolerance", "wide"], &["`wide` is no tolerance", "NAME=MM"]);
    check(
        &["--tolerance", "liver=1"],
        &["names `liver`, which is neither a label nor a group: there are 1 1, 2 2"],
    );
    check(&["--labels", "0"], &["a value from 1 to 255"]);
    check(&["--group", "all"], &["NAME=LABEL+LABEL"]);
    let space = folders();
    space.write("truth/c_4.nii", row(&[1]));
    let report = evaluate(&space, &[]);
    report.code(2);
    assert!(
        report.stderr.contains("case `c_4` of `truth` has no file of that name in `found`"),
        "{}",
        report.stderr
    );
}
