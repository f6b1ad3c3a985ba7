//! A data set outside of the cache: what a change of one of its files makes run.

use crate::space::TestSpace;

/// A NIfTI-1 volume of 4 × 4 × 4 bytes.
fn nifti(value: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = vec![0; 352];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &348_i32.to_le_bytes());
    for (at, extent) in [3_i16, 4, 4, 4, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * at, &extent.to_le_bytes());
    }
    put(70, &2_i16.to_le_bytes());
    put(72, &8_i16.to_le_bytes());
    for at in 0..8 {
        put(76 + 4 * at, &1_f32.to_le_bytes());
    }
    put(108, &352_f32.to_le_bytes());
    // The transform to patient space is the identity.
    put(254, &1_i16.to_le_bytes());
    for row in 0..3 {
        put(280 + 20 * row, &1_f32.to_le_bytes());
    }
    put(344, b"n+1\0");
    bytes.extend((0..64).map(value));
    bytes
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
        space.write(&format!("data/imagesTr/c_{case}.nii"), nifti(|at| (at * (case + 3) % 97) as u8));
        space.write(&format!("data/labelsTr/c_{case}.nii"), nifti(|at| u8::from(at % 7 == case % 3)));
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
    space.write(label, nifti(|at| u8::from(at % 7 == 2)));
    space.run(&[]).code(0).says("nothing to do");

    space.write(label, nifti(|at| u8::from(at % 7 == 2 || at == 40)));
    space
        .pipe(&["why", "--plan", "pipeline.yaml", "cases"])
        .code(0)
        .prints("data/labelsTr` changed: c_2.nii changed");
    let report = space.run(&[]);
    report.code(0).says("running cases").says("running volumes").says("1 items made, 5 reused");

    std::fs::remove_file(space.path("data/imagesTr/c_5.nii")).unwrap();
    std::fs::remove_file(space.path("data/labelsTr/c_5.nii")).unwrap();
    space.run(&[]).code(0).says("c_5.nii removed").says("running split").says("5 cases");
}
