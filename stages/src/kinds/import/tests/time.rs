//! Images with a fourth axis.

use super::*;

const POINTS: usize = 3;

/// Voxels of one time point, other ones in each.
fn point(index: usize) -> Image {
    let voxels = (0..120).map(|voxel| (100 * index + voxel) as f32).collect();
    Image::from_vec(voxels, 1, geometry()).expect("one value a voxel")
}

fn geometry() -> Geometry {
    Geometry::with_spacing(SHAPE, [2.0, 1.0, 0.5])
}

/// Case `liver_1` has one volume, `liver_2` one for each time point; both have one label map.
fn folder() -> Folder {
    let folder = Folder::with_cases(2);
    let voxels: Vec<f32> = (0..POINTS).flat_map(|index| point(index).as_slice().to_vec()).collect();
    let series = Image::from_vec(voxels, POINTS, geometry()).expect("one value a voxel and point");
    folder.write_image("liver_2", &series);
    folder
}

#[test]
fn a_fourth_axis_is_channels_unless_it_is_said_to_be_time() {
    let folder = folder();
    check_finding(
        &folder,
        "Error imagesTr/liver_2.nii.gz image has 3 channels but the data set declares 1; if they are time points, use \
         `four_d: time` Excluded",
    );
    let run = folder.import_with(&json!({ "four_d": "time" })).expect("the import goes through");
    assert_eq!(findings(&run, ""), [""; 0]);
    assert_eq!(ids(&run), ["liver_1", "liver_2_t000", "liver_2_t001", "liver_2_t002"]);
    let cases = run.load(&CASES).cases;
    assert_eq!((run.facts["cases"].as_u64(), run.facts["excluded"].as_u64()), (Some(4), Some(0)));
    for (index, case) in cases[1..].iter().enumerate() {
        assert_eq!((case.patient.as_str(), case.channels, case.shape), ("liver_2", 1, SHAPE));
        assert_eq!(case.info["time_point"], index.to_string());
        assert_eq!(case.label, cases[1].label);
        let path = run.dir("dataset").join(&case.image().path);
        assert_eq!(nifti::read_image(&path).expect("a time point").as_slice(), point(index).as_slice());
        assert_eq!(case.image().digest, hash_file(&path).expect("the file is there"));
    }
    assert_eq!(cases[0].info.get("time_point"), None);
}

#[test]
fn time_points_are_cut_once_and_come_back_from_the_memo() {
    let folder = folder();
    let [first, again] = [(); 2].map(|()| {
        let run = folder.import_with(&json!({ "four_d": "time" })).expect("the import goes through");
        (run.memo_misses, run.content("dataset"), run.content("cases"))
    });
    assert_eq!((first.0, again.0), (2, 0));
    assert_eq!((first.1, first.2), (again.1, again.2));
}

#[test]
fn the_patient_is_that_of_the_whole_file() {
    let mut folder = folder();
    let run = folder.import_with(&json!({ "four_d": "time", "patient": "id-pairs" })).expect("goes through");
    assert!(run.load(&CASES).cases.iter().all(|case| case.patient == "liver_1-2"));
    let image = nifti::read_image(&folder.image_path("liver_2")).expect("written before");
    folder.add("series");
    folder.write_image("series", &image);
    let run = folder.import_with(&json!({ "four_d": "time", "patient": "id-pairs" })).expect("goes through");
    check(
        &run,
        "Error imagesTr/series.nii.gz case name has no number from 1 at its end, which `patient: id-pairs` needs Excluded",
    );
    assert_eq!(ids(&run).len(), 4);
}

#[test]
fn a_time_point_that_is_broken_or_taken_is_told_alone() {
    let mut folder = folder();
    let mut series = nifti::read_image(&folder.image_path("liver_2")).expect("written before");
    series.as_mut_slice()[120 + 7] = f32::NAN;
    folder.write_image("liver_2", &series);
    folder.add("liver_2_t002");
    let run = folder.import_with(&json!({ "four_d": "time" })).expect("goes through");
    check(&run, "Error imagesTr/liver_2_t001.nii.gz image has 1 of 120 voxels NaN or infinite Excluded");
    check(
        &run,
        "Error imagesTr/liver_2.nii.gz time point 2 would be case `liver_2_t002`, which is another Excluded",
    );
    assert_eq!(ids(&run), ["liver_1", "liver_2_t000", "liver_2_t002"]);
}

#[test]
fn a_label_map_of_several_time_points_is_refused() {
    let mut folder = folder();
    let label = Image::from_vec(vec![1.0; 120 * POINTS], POINTS, geometry()).expect("one value a voxel");
    fs::remove_file(folder.label_path("liver_2")).expect("it is there");
    nifti::write_image(&folder.label_path("liver_2"), &label).expect("a file is written");
    folder.add("liver_3");
    let run = folder.import_with(&json!({ "four_d": "time" })).expect("goes through");
    let expected = "cannot be read: label has 3 channels, expected 1";
    assert_eq!(findings(&run, expected).len(), POINTS, "{:?}", findings(&run, ""));
    assert_eq!(ids(&run), ["liver_1", "liver_3"]);
}
