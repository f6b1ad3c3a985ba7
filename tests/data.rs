//! A data set outside of the cache: what a change of one of its files makes run.

use crate::space::TestSpace;
use crate::volume::nifti;

/// 4 × 4 × 4 voxels.
fn volume(value: impl Fn(usize) -> u8) -> Vec<u8> {
    nifti([4; 3], [1.0; 3], &(0..64).map(value).collect::<Vec<u8>>())
}

const PIPELINE: &str = "
name: data
stages:
  cases: { uses: import, with: { from: data } }
  unique: { uses: dedup, in: { cases: cases } }
  split: { uses: split, in: { cases: unique }, with: { folds: 2 } }
  volumes: { uses: crop, in: { cases: unique } }
";

fn space() -> TestSpace {
    let space = TestSpace::new(PIPELINE);
    let json = r#"{"name": "tiny", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "organ"},
        "numTraining": 6, "training": [], "test": []}"#;
    space.write("data/dataset.json", json);
    for case in 0..6 {
        space.write(&format!("data/imagesTr/c_{case}.nii"), volume(|at| (at * (case + 3) % 97) as u8));
        space.write(&format!("data/labelsTr/c_{case}.nii"), volume(|at| u8::from(at % 7 == case % 3)));
    }
    space
}

#[test]
fn a_data_set_is_looked_at_and_only_what_changed_runs() {
    let space = space();
    space.run(&[]).code(0).says("4 ran");
    // Files that were written in the tick in which they were hashed are hashed once more.
    std::thread::sleep(std::time::Duration::from_millis(50));
    space.run(&[]).code(0).says("nothing to do");
    space.run(&[]).code(0).says("nothing to do");

    let label = "data/labelsTr/c_2.nii";
    space.write(label, volume(|at| u8::from(at % 7 == 2)));
    space.run(&[]).code(0).says("nothing to do");

    space.write(label, volume(|at| u8::from(at % 7 == 2 || at == 40)));
    space
        .pipe(&["why", "--plan", "pipeline.yaml", "cases"])
        .code(0)
        .prints("data/labelsTr` changed: `c_2.nii` changed");
    let report = space.run(&[]);
    report.code(0).says("running cases").says("running volumes").says("1 items made, 5 reused");

    std::fs::remove_file(space.path("data/imagesTr/c_5.nii")).unwrap();
    std::fs::remove_file(space.path("data/labelsTr/c_5.nii")).unwrap();
    space.run(&[]).code(0).says("`c_5.nii` removed").says("running split").says("5 cases");
}
