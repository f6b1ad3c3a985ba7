use super::{VolumeRow, Volumes, VolumesInfo};
use crate::artifact::Artifact;
use crate::artifacts::{DatasetInfo, FileRef, Preparation, Region};
use fs_err as fs;
use pipe_cache::Digest;
use pipe_imaging::normalize::Normalization;
use pipe_imaging::resample::Interpolation;
use pipe_imaging::transform::Transform;
use pipe_imaging::{Geometry, Image, LabelMap};
use std::path::Path;
use tempfile::TempDir;

fn info() -> VolumesInfo {
    VolumesInfo {
        dataset: DatasetInfo {
            name: "Two".into(),
            labels: [(0, "background".into())].into(),
            ..DatasetInfo::default()
        },
        preparation: Preparation {
            region: Region::Nonzero,
            margin_mm: 2.5,
            spacing_mm: Some([1.0, 0.1, 1.0 / 3.0]),
            interpolation: Interpolation::Cubic,
            normalization: Normalization::ZscoreNonzero,
            pad_to: Some([8, 8, 4]),
        },
    }
}

/// `a` is 2×3×4 with a label, `b` 5×1×2 without and with two channels.
fn stored() -> (TempDir, Volumes) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let label = FileRef { path: "labelsTr/a, \"odd\".nii.gz".into(), digest: Digest::of_bytes(b"a") };
    let rows =
        [("b", [5, 1, 2], 2, None), ("a", [2, 3, 4], 1, Some(label))].map(|(id, shape, channels, label)| {
            let grid = Geometry::with_spacing(shape, [1.0, 1.0 / 3.0, 2.0]);
            let voxels = grid.shape.voxels().expect("a small grid");
            let values = (0..channels * voxels).map(|value| value as f32).collect();
            let image = Image::from_vec(values, channels, grid).expect("as many values as voxels");
            let map = LabelMap::from_vec(vec![7; voxels], grid).expect("as many values as voxels");
            let transform = Transform::new(&grid);
            Volumes::write_case(dir.path(), id, &image, label.as_ref().map(|_| &map), &transform)
                .expect("written");
            VolumeRow {
                id: id.into(),
                patient: format!("patient of {id}"),
                channels,
                shape,
                spacing_mm: [1.0, 0.333_333_3, 2.0],
                source_shape: shape,
                source_spacing_mm: [1.0, 0.333_333_3, 2.0],
                label,
            }
        });
    let volumes = Volumes::new(info(), rows.into(), dir.path());
    volumes.store(dir.path()).expect("stored");
    (dir, volumes)
}

#[test]
fn what_is_stored_reads_back_and_a_copy_too() {
    let (dir, volumes) = stored();
    assert_eq!(Volumes::load(dir.path()).expect("reads back"), volumes);
    let copy = tempfile::tempdir().expect("temporary folder");
    volumes.store(copy.path()).expect("stored");
    drop(dir);
    let copied = Volumes::load(copy.path()).expect("reads back");
    assert_eq!((&copied.info, &copied.rows), (&volumes.info, &volumes.rows));
    assert_eq!(copied.rows[0].id, "a");
    assert_eq!(copied.image("b").expect("image").channel(1)[0], 10.0);
    assert_eq!(copied.label("a").expect("label").expect("a has a label").as_slice(), [7; 24]);
    assert_eq!(copied.label("b").expect("label"), None);
}

#[test]
fn the_largest_shape_holds_every_case_asked_for() {
    let (_dir, volumes) = stored();
    assert_eq!(volumes.largest_shape(["a", "b"]), [5, 3, 4]);
    assert_eq!(volumes.largest_shape(["b", "unknown"]), [5, 1, 2]);
    assert_eq!(volumes.largest_shape([]), [0; 3]);
}

#[test]
fn a_case_that_is_not_there_is_named() {
    let (_dir, volumes) = stored();
    for error in [volumes.image("c").err(), volumes.label("c").err(), volumes.transform("c").err()] {
        assert_eq!(error.expect("there is no c").to_string(), "the volumes hold no case `c`");
    }
}

#[test]
fn the_table_is_what_pandas_expects() {
    let (dir, _) = stored();
    let text = fs::read_to_string(dir.path().join("meta.csv")).expect("table");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "id,patient,channels,shape_z,shape_y,shape_x,spacing_z_mm,spacing_y_mm,spacing_x_mm,source_shape_z,\
         source_shape_y,source_shape_x,source_spacing_z_mm,source_spacing_y_mm,source_spacing_x_mm,label,label_blake3"
    );
    assert_eq!(lines[2], "b,patient of b,2,5,1,2,1.0,0.3333333,2.0,5,1,2,1.0,0.3333333,2.0,,");
    assert_eq!(lines.len(), 3);
}

/// Changes a file of the artifact, then expects that loading it or reading everything fails with this text.
#[track_caller]
fn check(change: impl FnOnce(&Path), expected: &str) {
    let (dir, _) = stored();
    change(dir.path());
    let read = || {
        let volumes = Volumes::load(dir.path())?;
        for row in &volumes.rows {
            volumes.image(&row.id)?;
            volumes.label(&row.id)?;
        }
        Ok::<(), crate::error::StageError>(())
    };
    let text = read().expect_err("a file lies").chain();
    assert!(text.contains(expected), "expected `{expected}` in: {text}");
}

fn edit(file: &'static str, from: &'static str, to: &'static str) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join(file);
        let text = fs::read_to_string(&path).expect("file is text");
        assert!(text.contains(from), "`{from}` is in: {text}");
        fs::write(&path, text.replacen(from, to, 1)).expect("file can be written");
    }
}

#[test]
fn a_table_that_contradicts_the_files_is_told_before_anything_is_allocated() {
    check(
        edit("meta.csv", "1,2,3,4,", "1,2000000000,3000000000,4000000000,"),
        "case `a` has 1 channel of 2000000000×3000000000×4000000000 voxels by this table but 224 bytes by its own files",
    );
    check(edit("meta.csv", "1,2,3,4,", "1,0,3,4,"), "case `a` has 1 channel of 0×3×4 voxels");
    check(edit("meta.csv", "1,2,3,4,", "0,2,3,4,"), "case `a` has 0 channels of 2×3×4 voxels");
}

#[test]
fn a_table_of_the_right_size_that_lies_is_told_with_both_values() {
    check(
        edit("meta.csv", "1,2,3,4,", "1,4,3,2,"),
        "case `a` has a grid of 4×3×2 voxels by this table but 2×3×4 by its own files",
    );
    check(
        edit("meta.csv", "2,5,1,2,", "1,5,1,2,"),
        "case `b` has 1 channel by this table but 2 by its own files",
    );
    check(
        edit("meta.csv", "2.0,2,3,4,", "2.0,2,3,5,"),
        "case `a` has a source grid of 2×3×5 voxels by this table but 2×3×4 by its own files",
    );
    check(
        edit("meta.csv", "4,1.0,0.3333333,2.0,2", "4,1.5,0.3333333,2.0,2"),
        "case `a` has voxels of [1.5, 0.3333333, 2.0] mm by this table but [1.0, 0.3333333333333333, 2.0]",
    );
}

#[test]
fn files_that_are_not_what_the_transform_says_are_told() {
    let swap = |from: &'static str, to: &'static str| {
        move |dir: &Path| {
            fs::copy(dir.join(from), dir.join(to)).expect("file can be copied");
        }
    };
    check(swap("images/b.npy", "images/a.npy"), "reading image of case `a`");
    check(swap("images/a.npy", "labels/a.npy"), "elements are `<f4`, expected `|u1`");
    check(swap("transforms/b.json", "transforms/a.json"), "case `a` has a grid of 2×3×4 voxels");
    check(|dir| fs::remove_file(dir.join("labels/a.npy")).expect("removed"), "reading label of case `a`");
    check(|dir| fs::remove_file(dir.join("images/b.npy")).expect("removed"), "cannot look at");
}

#[test]
fn a_table_with_rows_that_cannot_be_is_refused() {
    check(
        edit("meta.csv", "a,patient", "c,patient"),
        "case `c` before case `b`: ids must be sorted and unique",
    );
    check(edit("meta.csv", "a,patient", "b,patient"), "case `b` before case `b`");
    check(edit("meta.csv", "a,patient", "../a,patient"), "case `../a` cannot be stored");
    check(edit("meta.csv", "2.0,,", "2.0,x,"), "case `b` has only one of `label` and `label_blake3`");
    check(edit("meta.csv", "shape_z", "depth"), "missing field `shape_z`");
    check(edit("volumes.json", "margin_mm", "margin"), "unknown field `margin`");
}
