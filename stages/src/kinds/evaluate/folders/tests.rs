use super::*;
use crate::testing::TestSpace;
use pipe_imaging::{Geometry, nifti};

/// A folder of label maps in a row of 1 mm voxels.
fn folder(space: &TestSpace, name: &str, maps: &[(&str, &[u8])]) -> PathBuf {
    let folder = space.path().join(name);
    fs::create_dir_all(&folder).expect("temporary folder");
    for (file, voxels) in maps {
        let grid = Geometry::with_spacing([1, 1, voxels.len()], [1.0; 3]);
        let map = LabelMap::from_vec(voxels.to_vec(), grid).expect("sizes agree");
        nifti::write_label(&folder.join(file), &map).expect("temporary file");
    }
    folder
}

fn folders<'a>(predictions: &'a Path, references: &'a Path) -> Folders<'a> {
    Folders {
        predictions,
        references,
        baseline: None,
        labels: BTreeMap::new(),
        patient: PatientRule::EachCase,
    }
}

fn dice(metrics: &Metrics) -> Vec<(&str, &str, Option<f64>)> {
    let rows = metrics.rows.iter().filter(|row| row.metric == "dice");
    rows.map(|row| (row.case.as_str(), row.name.as_str(), row.value)).collect()
}

#[test]
fn files_are_matched_by_name_and_labels_found_in_both() {
    let space = TestSpace::new();
    let references =
        folder(&space, "r", &[("a.nii.gz", &[0, 1, 1]), ("b.nii", &[0, 1, 1]), ("._a.nii.gz", &[1])]);
    let predictions = folder(&space, "p", &[("a.nii", &[0, 1, 1]), ("b.nii.gz", &[0, 1, 3])]);
    let found = evaluate(&folders(&predictions, &references), &Scoring::default(), &|_| ()).expect("scored");
    assert_eq!(
        dice(&found),
        [("a", "1", Some(1.0)), ("a", "3", None), ("b", "1", Some(2.0 / 3.0)), ("b", "3", Some(0.0))]
    );
    assert_eq!((found.summary.cases, found.summary.patients), (2, 2));
    let named = Folders { labels: [(1, "liver".into())].into(), ..folders(&predictions, &references) };
    let found = evaluate(&named, &Scoring::default(), &|_| ()).expect("scored");
    assert_eq!(dice(&found), [("a", "liver", Some(1.0)), ("b", "liver", Some(2.0 / 3.0))]);

    let out = space.path().join("out/deep");
    write(&found, &out).expect("written");
    assert_eq!(Metrics::load(&out).expect("read back"), found);
}

#[test]
fn names_tell_patients_and_other_predictions_are_a_baseline() {
    let space = TestSpace::new();
    let maps: [(&str, &[u8]); 2] = [("c_001.nii.gz", &[0, 1, 1]), ("c_002.nii.gz", &[0, 1, 1])];
    let references = folder(&space, "r", &maps);
    let worse = folder(&space, "w", &[("c_001.nii.gz", &[0, 1, 0]), ("c_002.nii.gz", &[0, 1, 1])]);
    let both = Folders {
        baseline: Some(&worse),
        patient: PatientRule::IdPairs,
        ..folders(&references, &references)
    };
    let found = evaluate(&both, &Scoring::default(), &|_| ()).expect("scored").summary;
    assert_eq!((found.cases, found.patients), (2, 1));
    let row = &found.comparison[0];
    assert_eq!((row.metric.as_str(), row.patients, row.better), ("dice", 1, 1));
    // Of one case a third, of the other nothing.
    assert!((row.mean_difference.expect("defined") - 1.0 / 6.0).abs() < 1e-15, "{row:?}");
}

#[test]
fn folders_that_do_not_belong_together_are_refused() {
    #[track_caller]
    fn check(predictions: &[(&str, &[u8])], references: &[(&str, &[u8])], expected: &str) {
        let space = TestSpace::new();
        let (p, r) = (folder(&space, "p", predictions), folder(&space, "r", references));
        let error = evaluate(&folders(&p, &r), &Scoring::default(), &|_| ()).expect_err("refused").chain();
        let error = error.replace(&space.path().display().to_string(), "");
        assert_eq!(error, expected);
    }
    let one: &[(&str, &[u8])] = &[("a.nii", &[1])];
    let two: &[(&str, &[u8])] = &[("a.nii", &[1]), ("b.nii", &[1]), ("c.nii", &[1])];
    check(one, two, "case `b` and 1 more of `/r` has no file of that name in `/p`: every case needs both");
    check(two, one, "case `b` and 1 more of `/p` has no file of that name in `/r`: every case needs both");
    check(
        one,
        &[],
        "`/r` holds no label map: their names end in .nii.gz, .nii, .nrrd, .mha, .mhd, .png, .tif, .tiff",
    );
    check(
        one,
        &[("a.nii", &[1]), ("a.nii.gz", &[1])],
        "`/r/a.nii` and `/r/a.nii.gz` are the same case: remove one",
    );
    check(&[("a.nii", &[0])], &[("a.nii", &[0])], "no map has a label: there is nothing to score");
    check(
        one,
        &[("a.nii", &[1, 1])],
        "`/r/a.nii` cannot be compared with its prediction: it has 1×1×2 voxels but the prediction 1×1×1 (z×y×x)",
    );
}

#[test]
fn maps_that_lie_apart_are_compared_and_told() {
    let space = TestSpace::new();
    let (p, r) = (folder(&space, "p", &[("a.nii", &[0, 1])]), folder(&space, "r", &[("a.nii", &[0, 1])]));
    let told = |metrics: &dyn Fn(&str)| {
        let lines = std::sync::Mutex::new(Vec::new());
        let notice = |line: &str| lines.lock().expect("no panic").push(line.to_owned());
        let found = evaluate(&folders(&p, &r), &Scoring::default(), &notice).expect("scored");
        metrics(&format!("{:?}", dice(&found)));
        lines.into_inner().expect("no panic")
    };
    assert_eq!(told(&|_| ()), Vec::<String>::new());
    let grid = Geometry::with_spacing([1, 1, 2], [1.0; 3]);
    let mut moved = grid;
    moved.affine = pipe_imaging::Affine::from_columns(
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [4.0, 0.0, 0.0],
    );
    nifti::write_label(&p.join("a.nii"), &LabelMap::from_vec(vec![0, 1], moved).expect("two voxels"))
        .expect("written");
    let lines = told(&|dice| assert_eq!(dice, "[(\"a\", \"1\", Some(1.0))]"));
    assert!(lines.len() == 1 && lines[0].contains("lie 4.000 mm apart by their headers"), "{lines:?}");
}
