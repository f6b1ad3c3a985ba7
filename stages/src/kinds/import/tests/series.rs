//! Folders of DICOM series without a table, and folders of something else.

use super::table::formats;
use super::*;
use crate::artifacts::Severity;
use crate::testing::real_data;

/// A folder with copied files; `folders` are reference and target.
fn tree(folders: &[(&str, &str)]) -> TestSpace {
    let space = TestSpace::new();
    for (from, to) in folders {
        let to = space.path().join("data").join(to);
        fs::create_dir_all(&to).expect("temporary folder");
        for entry in fs::read_dir(formats().join(from)).expect("reference") {
            let entry = entry.expect("reference");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("reference");
        }
    }
    space
}

fn write(space: &TestSpace, name: &str, bytes: &[u8]) {
    let path = space.path().join("data").join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("temporary folder");
    fs::write(path, bytes).expect("temporary file");
}

fn import(space: &TestSpace) -> Result<TestRun, StageError> {
    space.run::<Import>(json!({ "from": space.path().join("data") }), &[])
}

/// A DICOM file without pixels.
fn without_image(modality: &str) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut element = |group: u16, number: u16, kind: &[u8; 2], value: &str| {
        let value = if value.len().is_multiple_of(2) { value.to_owned() } else { format!("{value} ") };
        bytes.extend(group.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(kind);
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(value.bytes());
    };
    element(0x0002, 0x0010, b"UI", "1.2.840.10008.1.2.1\0");
    element(0x0008, 0x0060, b"CS", modality);
    bytes
}

const NO_LABELS: &str = "Note  a folder of DICOM series has no label maps; to give the cases some, list both in a CSV and name it \
    with `table:` Kept";

#[test]
fn every_series_is_a_case_of_the_patient_that_it_names() {
    let folders = [("dicom_oblique", "Anna Müller/MR 1"), ("dicom_sagittal", "Anna Müller/MR 2")];
    let space = tree(&folders);
    write(&space, "Anna Müller/readme.txt", b"scanned on a Monday");
    write(&space, "Anna Müller/.DS_Store", b"x");
    let run = import(&space).expect("sound");
    assert_eq!(ids(&run), ["Anna Müller_MR 1", "Anna Müller_MR 2"]);
    assert_eq!(findings(&run, ""), [NO_LABELS]);
    let table = run.load(&CASES);
    let case = &table.cases[0];
    assert_eq!((case.patient.as_str(), case.shape, case.dtype.as_str()), ("P-7", [3, 4, 5], "int16"));
    let info = ["modality", "series_description", "study_date"].map(|name| case.info[name].as_str());
    assert_eq!(info, ["MR", "dicom_oblique", "20200119"]);
    let made = run.dir("dataset").join(&case.image().path);
    assert_eq!(hash_file(&made).expect("the file is there"), case.image().digest);
    assert_eq!(import(&space).expect("sound").memo_misses, 0);
}

#[test]
fn series_that_share_a_folder_are_told_apart_by_their_uid() {
    let space = tree(&[("dicom_oblique", "scan"), ("dicom_sagittal", "scan")]);
    let run = import(&space).expect("sound");
    let ids = ids(&run);
    assert_eq!(ids.len(), 2);
    for id in &ids {
        let uid = id.strip_prefix("scan_").expect("folder and UID");
        assert!(uid.starts_with("1.2.826.") && uid.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()));
    }
    // A series at the top has no folder to be called by.
    let space = tree(&[("dicom_oblique", "")]);
    assert!(ids.contains(&format!("scan_{}", super::ids(&import(&space).expect("sound"))[0])));
}

#[test]
fn contours_and_segmentations_are_passed_over_with_a_word() {
    let space = tree(&[("dicom_oblique", "a")]);
    write(&space, "a/contours.dcm", &without_image("RTSTRUCT"));
    write(&space, "b/seg.dcm", &without_image("SEG"));
    write(&space, "b/report.dcm", &without_image("SR"));
    let run = import(&space).expect("sound");
    assert_eq!(ids(&run), ["a"]);
    for expected in [
        "Note a/contours.dcm DICOM contours (RTSTRUCT), which are not read: convert them to label maps Skipped",
        "Note b/seg.dcm a DICOM segmentation (SEG), which is not read: convert it to a label map Skipped",
        "Note b/report.dcm a DICOM file that holds no image (SR) Skipped",
    ] {
        check(&run, expected);
    }
}

#[test]
fn a_damaged_slice_excludes_its_series_and_no_other() {
    let space = tree(&[("dicom_oblique", "a"), ("dicom_sagittal", "b")]);
    let mut slices: Vec<PathBuf> = fs::read_dir(space.path().join("data/a"))
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .collect();
    slices.sort();
    let bytes = fs::read(&slices[0]).expect("a slice");
    fs::write(&slices[0], &bytes[..bytes.len() - 7]).expect("a slice");
    let run = import(&space).expect("one series is sound");
    assert_eq!(ids(&run), ["b"]);
    let errors: Vec<Finding> =
        run.load(&CHECKS).findings.into_iter().filter(|found| found.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].case, "a");
    let name = slices[0].file_name().expect("a name").to_string_lossy().into_owned();
    assert!(errors[0].problem.starts_with(&format!("cannot be read: `{name}`: ")), "{errors:?}");
}

#[track_caller]
fn refused(files: &[&str], help: &str) {
    let space = TestSpace::new();
    write(&space, "notes.txt", b"x");
    for name in files {
        write(&space, name, b"x");
    }
    let error = import(&space).expect_err("there is no data set").to_string();
    assert!(
        error.contains("holds no data set: there is no `dataset.json`, `imagesTr` or `labelsTr` in it"),
        "{error}"
    );
    assert!(error.ends_with(help), "{error}");
}

#[test]
fn a_folder_of_something_else_is_told_how_to_be_read() {
    refused(
        &["img/a.png", "img/b.PNG", "img/c.nii.gz"],
        "list its 3 images (.nii.gz, .png) in a CSV with the columns `id`, `image` and `label`, and name that with `table:`",
    );
    refused(&["pneumoniamnist.npz"], "to read the archive in it, use `archive: pneumoniamnist.npz`");
    refused(
        &["sub-01/anat/sub-01_T1w.nii.gz"],
        "it looks like BIDS: use `bids: { image: T1w, label: dseg }`, with your suffixes",
    );
    refused(
        &[],
        "list them in a CSV with the columns `id`, `image` and `label`, and name that with `table:`",
    );
}

#[test]
fn the_three_cropped_series_are_cases_of_three_patients() {
    let Some(data) = real_data("dicom_hcrop") else { return };
    let space = TestSpace::new();
    let run = space.run::<Import>(json!({ "from": data }), &[]).expect("sound");
    let table = run.load(&CASES);
    let told: Vec<_> =
        table.cases.iter().map(|case| (case.id.as_str(), case.patient.as_str(), case.shape)).collect();
    assert_eq!(
        told,
        [
            ("Study1_13_HCropVolume", "PGBM-002", [32, 51, 35]),
            ("Study2_14_HCropVolume", "PGBM-006", [35, 48, 36]),
            ("Study3_11_HCropVolume", "PGBM-003", [40, 50, 34]),
        ]
    );
}
