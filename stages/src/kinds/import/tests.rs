mod annotators;
mod archive;
mod bids;
mod like;
mod real;
mod series;
mod table;
mod time;

use super::*;
use crate::testing::{TestRun, TestSpace, problems};
use fs_err as fs;
use pipe_cache::hash_file;
use pipe_imaging::{Geometry, Image, LabelMap, nifti};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A data set in a temporary folder, made file by file.
struct Folder {
    space: TestSpace,
    listed: Vec<String>,
}

const SHAPE: [usize; 3] = [4, 5, 6];

impl Folder {
    fn new() -> Self {
        let folder = Self { space: TestSpace::new(), listed: Vec::new() };
        for part in [Dataset::IMAGES, Dataset::LABELS] {
            fs::create_dir_all(folder.root().join(part)).expect("temporary folder");
        }
        folder
    }

    fn with_cases(count: usize) -> Self {
        let mut folder = Self::new();
        (1..=count).for_each(|number| folder.add(&format!("liver_{number}")));
        folder
    }

    fn root(&self) -> PathBuf {
        self.space.path().join("data")
    }

    fn image_path(&self, id: &str) -> PathBuf {
        self.root().join(Dataset::IMAGES).join(format!("{id}.nii.gz"))
    }

    fn label_path(&self, id: &str) -> PathBuf {
        self.root().join(Dataset::LABELS).join(format!("{id}.nii.gz"))
    }

    /// Adds a sound case whose voxels depend on its name.
    fn add(&mut self, id: &str) {
        self.write_image(id, &image(id, SHAPE));
        self.write_label(id, &label(SHAPE, 1));
        self.listed.push(id.to_owned());
    }

    fn write_image(&self, id: &str, image: &Image) {
        nifti::write_image(&self.image_path(id), image).expect("an image is written");
    }

    fn write_label(&self, id: &str, label: &LabelMap) {
        nifti::write_label(&self.label_path(id), label).expect("a label is written");
    }

    fn write_manifest(&self, text: &str) {
        fs::write(self.root().join(Dataset::MANIFEST), text).expect("a manifest is written");
    }

    fn manifest(&self) -> Value {
        let entry = |id: &String| json!({ "image": format!("./imagesTr/{id}.nii.gz"), "label": format!("./labelsTr/{id}.nii.gz") });
        json!({
            "name": "Liver", "description": "d", "reference": "r", "licence": "CC0",
            "modality": { "0": "CT" }, "labels": { "0": "background", "1": "liver" },
            "numTraining": self.listed.len(), "training": self.listed.iter().map(entry).collect::<Vec<_>>(),
        })
    }

    fn import(&self) -> TestRun {
        self.import_with(&json!({})).expect("the import goes through")
    }

    fn import_with(&self, extra: &Value) -> Result<TestRun, StageError> {
        if !self.root().join(Dataset::MANIFEST).exists() {
            self.write_manifest(&self.manifest().to_string());
        }
        let mut params = json!({ "from": self.root() });
        params.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        self.space.run::<Import>(params, &[])
    }
}

fn image(id: &str, shape: [usize; 3]) -> Image {
    let start: u32 = id.bytes().map(u32::from).sum();
    let voxels = (0..shape.iter().product::<usize>()).map(|index| (start + index as u32) as f32).collect();
    Image::from_vec(voxels, 1, Geometry::with_spacing(shape, [2.0, 1.0, 0.5])).expect("one value a voxel")
}

/// One voxel of `value`.
fn label(shape: [usize; 3], value: u8) -> LabelMap {
    let mut voxels = vec![0; shape.iter().product()];
    voxels[17] = value;
    LabelMap::from_vec(voxels, Geometry::with_spacing(shape, [2.0, 1.0, 0.5])).expect("one label a voxel")
}

fn ids(run: &TestRun) -> Vec<String> {
    run.load(&CASES).cases.into_iter().map(|case| case.id).collect()
}

/// Findings as `severity file problem action`, without those whose problem does not contain `about`.
fn findings(run: &TestRun, about: &str) -> Vec<String> {
    let table = run.load(&CHECKS);
    let line = |finding: &Finding| {
        format!("{:?} {} {} {:?}", finding.severity, finding.file, finding.problem, finding.action)
    };
    table.findings.iter().map(line).filter(|line| line.contains(about)).collect()
}

#[track_caller]
fn check_finding(folder: &Folder, expected: &str) {
    check(&folder.import(), expected);
}

#[track_caller]
fn check(run: &TestRun, expected: &str) {
    let all = findings(run, "");
    assert!(all.iter().any(|line| line == expected), "expected `{expected}` among\n{}", all.join("\n"));
}

#[test]
fn a_sound_data_set_is_read_without_a_finding() {
    let folder = Folder::with_cases(3);
    let run = folder.import();
    assert_eq!(findings(&run, ""), [""; 0]);
    assert_eq!(run.warnings, [""; 0]);
    let table = run.load(&CASES);
    assert_eq!(table.dataset.name, "Liver");
    assert_eq!(table.dataset.channels, ["CT"]);
    let case = table.get("liver_2").expect("the case is there");
    assert_eq!(case.image().path, "imagesTr/liver_2.nii.gz");
    assert_eq!((case.shape, case.spacing_mm), (SHAPE, [2.0, 1.0, 0.5]));
    assert_eq!((case.orientation.as_str(), case.dtype.as_str(), case.channels), ("RAS", "float32", 1));
    assert_eq!(case.label_foreground, Some(1));
    assert_eq!(case.patient, "liver_2");
    assert_eq!(run.facts["cases"], 3);
}

#[test]
fn no_absolute_path_enters_an_output() {
    let folder = Folder::with_cases(2);
    let run = folder.import();
    let place = folder.root().to_string_lossy().into_owned();
    for port in ["cases", "checks"] {
        for file in run.content(port).keys() {
            let text = fs::read_to_string(run.dir(port).join(file)).expect("outputs are text");
            assert!(!text.contains(&place), "`{file}` holds {place}");
        }
    }
}

#[test]
fn adding_a_case_reads_one_case() {
    let mut folder = Folder::with_cases(5);
    assert_eq!(folder.import().memo_misses, 5);
    assert_eq!(folder.import().memo_misses, 0);
    folder.add("liver_6");
    folder.write_manifest(&folder.manifest().to_string());
    let run = folder.import();
    assert_eq!((run.memo_misses, ids(&run).len()), (1, 6));
}

#[test]
fn halves_are_excluded() {
    let mut folder = Folder::with_cases(2);
    folder.write_image("liver_7", &image("liver_7", SHAPE));
    folder.write_label("liver_8", &label(SHAPE, 1));
    check_finding(
        &folder,
        "Error imagesTr/liver_7.nii.gz image without label: 4×5×6 voxels of 2×1×0.5 mm (z×y×x) Excluded",
    );
    check_finding(
        &folder,
        "Error labelsTr/liver_8.nii.gz label without image, voxel for voxel the label of case `liver_2`: 4×5×6 voxels \
         of 2×1×0.5 mm (z×y×x) Excluded",
    );
    assert_eq!(ids(&folder.import()), ["liver_1", "liver_2"]);
    folder.listed.push("liver_7".into());
    let kept = folder.import_with(&json!({ "unlabelled": "keep" })).expect("the import goes through");
    assert_eq!(ids(&kept), ["liver_1", "liver_2", "liver_7"]);
    assert_eq!(kept.load(&CASES).cases[2].label, None);
}

#[test]
fn a_listed_file_that_is_not_there_excludes_the_case() {
    let mut folder = Folder::with_cases(2);
    folder.add("liver_3");
    fs::remove_file(folder.label_path("liver_3")).expect("the label was there");
    folder.listed.push("liver_4".into());
    check_finding(
        &folder,
        "Error labelsTr/liver_3.nii.gz is listed in dataset.json, but there is no such file Excluded",
    );
    check_finding(
        &folder,
        "Error imagesTr/liver_4.nii.gz is listed in dataset.json, but there is no such file Excluded",
    );
    let kept = folder.import_with(&json!({ "unlabelled": "keep" })).expect("the import goes through");
    assert_eq!(ids(&kept), ["liver_1", "liver_2"]);
}

#[test]
fn a_pair_that_is_not_listed_is_kept_with_a_warning() {
    let mut folder = Folder::with_cases(3);
    folder.listed.pop();
    check_finding(&folder, "Warning imagesTr/liver_3.nii.gz is not listed in dataset.json Kept");
    assert_eq!(ids(&folder.import()).len(), 3);
}

#[test]
fn files_that_are_no_images_are_skipped() {
    let folder = Folder::with_cases(1);
    for name in ["._liver_1.nii.gz", ".DS_Store", "notes.txt", "old/liver_1.nii.gz"] {
        let path = folder.root().join(Dataset::IMAGES).join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("temporary folder");
        fs::write(path, "x").expect("a file is written");
    }
    check_finding(
        &folder,
        "Note imagesTr/._liver_1.nii.gz AppleDouble file that macOS adds to `liver_1.nii.gz` Skipped",
    );
    check_finding(&folder, "Note imagesTr/.DS_Store hidden file Skipped");
    check_finding(&folder, "Warning imagesTr/notes.txt is neither `.nii` nor `.nii.gz` Skipped");
    check_finding(
        &folder,
        "Warning imagesTr/old/liver_1.nii.gz lies in a folder of its own, which the layout does not have Skipped",
    );
    assert_eq!(ids(&folder.import()), ["liver_1"]);
}

#[test]
fn the_same_case_compressed_and_not_is_told() {
    let folder = Folder::with_cases(1);
    let plain = folder.root().join(Dataset::IMAGES).join("liver_1.nii");
    nifti::write_image(&plain, &image("x", SHAPE)).expect("an image is written");
    check_finding(
        &folder,
        "Warning imagesTr/liver_1.nii is a second file for the case, besides `imagesTr/liver_1.nii.gz` Skipped",
    );
}

#[test]
fn a_truncated_file_excludes_its_case() {
    let mut folder = Folder::with_cases(1);
    folder.add("liver_2");
    let bytes = fs::read(folder.image_path("liver_2")).expect("the image is there");
    fs::write(folder.image_path("liver_2"), &bytes[..bytes.len() / 2]).expect("a file is written");
    folder.add("liver_3");
    fs::write(folder.label_path("liver_3"), "").expect("a file is written");
    let run = folder.import();
    assert_eq!(ids(&run), ["liver_1"]);
    assert_eq!(findings(&run, "Error imagesTr/liver_2.nii.gz cannot be read: ").len(), 1);
    assert_eq!(findings(&run, "Error labelsTr/liver_3.nii.gz cannot be read: ").len(), 1);
}

#[test]
fn a_label_of_another_shape_excludes_its_case() {
    let mut folder = Folder::with_cases(1);
    folder.add("liver_2");
    folder.write_label("liver_2", &label([4, 5, 7], 1));
    check_finding(
        &folder,
        "Error labelsTr/liver_2.nii.gz image is 4×5×6 but its mask is 4×5×7 (z×y×x) Excluded",
    );
    assert_eq!(ids(&folder.import()), ["liver_1"]);
}

#[test]
fn not_a_number_excludes_its_case() {
    let mut folder = Folder::with_cases(1);
    folder.add("liver_2");
    let mut broken = image("liver_2", SHAPE);
    broken.as_mut_slice()[3] = f32::NAN;
    folder.write_image("liver_2", &broken);
    check_finding(
        &folder,
        "Error imagesTr/liver_2.nii.gz image has 1 of 120 voxels NaN or infinite Excluded",
    );
}

#[test]
fn a_label_value_that_is_not_declared_excludes_its_case() {
    let mut folder = Folder::with_cases(1);
    folder.add("liver_2");
    folder.write_label("liver_2", &label(SHAPE, 9));
    check_finding(
        &folder,
        "Error labelsTr/liver_2.nii.gz mask has labels 9 (1 voxels) but the data set declares [0, 1] Excluded",
    );
}

#[test]
fn an_empty_label_map_is_kept_with_a_warning() {
    let mut folder = Folder::with_cases(1);
    folder.add("liver_2");
    folder.write_label("liver_2", &label(SHAPE, 0));
    check_finding(&folder, "Warning labelsTr/liver_2.nii.gz mask holds background only Kept");
    assert_eq!(folder.import().load(&CASES).cases[1].label_foreground, Some(0));
}

#[test]
fn without_a_manifest_the_files_speak() {
    for manifest in [None, Some("{ broken")] {
        let folder = Folder::with_cases(2);
        if let Some(text) = manifest {
            folder.write_manifest(text);
        }
        let run = match manifest {
            Some(_) => folder.import(),
            None => folder
                .space
                .run::<Import>(json!({ "from": folder.root() }), &[])
                .expect("the import goes through"),
        };
        assert_eq!(findings(&run, "Error dataset.json").len(), 1);
        let table = run.load(&CASES);
        assert_eq!(table.dataset.foreground().collect::<Vec<_>>(), [(1, "label 1")]);
        assert_eq!(table.dataset.channels, ["channel 0"]);
        assert_eq!(table.cases.len(), 2);
    }
}

#[test]
fn strict_stops_and_tells_everything() {
    let folder = Folder::with_cases(1);
    for number in 2..=30 {
        folder.write_image(&format!("liver_{number}"), &image("x", SHAPE));
    }
    folder.write_manifest(&folder.manifest().to_string());
    let error = folder.import_with(&json!({ "strict": true })).expect_err("there are errors").to_string();
    assert!(error.starts_with("29 errors:\n  `imagesTr/liver_10.nii.gz`: image without label"), "{error}");
    assert!(error.ends_with("\n  and 9 more"), "{error}");
    let sound = Folder::with_cases(2);
    assert!(sound.import_with(&json!({ "strict": true })).is_ok());
}

#[test]
fn nothing_usable_is_an_error() {
    let mut folder = Folder::new();
    folder.listed.push("liver_1".into());
    let error = folder.import_with(&json!({})).expect_err("there is no case").to_string();
    assert!(error.starts_with("no case can be used; 2 errors:"), "{error}");
    let space = TestSpace::new();
    let error = space
        .run::<Import>(json!({ "from": space.path().join("none") }), &[])
        .expect_err("there is no folder");
    assert!(error.to_string().ends_with("holds no data set: there is no such folder"), "{error}");
}

#[test]
fn a_task_names_a_folder_or_the_data_set_itself() {
    let folder = Folder::with_cases(2);
    folder.import();
    let parent = folder.root().parent().expect("a folder").to_owned();
    let run = folder
        .space
        .run::<Import>(json!({ "from": parent, "task": "data" }), &[])
        .expect("the folder is found");
    assert_eq!(run.load(&CASES).cases[0].image().path, "imagesTr/liver_1.nii.gz");
    assert!(folder.import_with(&json!({ "task": "Task03_Liver" })).is_ok());
    let error = folder.import_with(&json!({ "task": "Task09_Spleen" })).expect_err("it is another data set");
    assert!(
        error
            .to_string()
            .ends_with("holds the data set `Liver`, not `Task09_Spleen`, and no folder `Task09_Spleen`"),
        "{error}"
    );
}

#[test]
fn patients_come_from_names() {
    let folder = Folder::with_cases(4);
    let run = folder.import_with(&json!({ "patient": "id-pairs" })).expect("the import goes through");
    let patients: Vec<String> = run.load(&CASES).cases.into_iter().map(|case| case.patient).collect();
    assert_eq!(patients, ["liver_1-2", "liver_1-2", "liver_3-4", "liver_3-4"]);
    assert_eq!(run.facts["patients"], 2);
}

#[test]
fn parameters_that_cannot_be_used_are_told() {
    let told = |params: Value| {
        problems::<Import>(params).into_iter().map(|problem| problem.parameter).collect::<Vec<_>>()
    };
    assert_eq!(told(json!({ "from": "data" })), [""; 0]);
    assert_eq!(told(json!({ "from": "" })), ["from"]);
    assert_eq!(told(json!({ "from": "data", "phantom": {} })), ["phantom"]);
    assert_eq!(told(json!({ "from": "phantom", "task": "x" })), ["task"]);
    assert_eq!(told(json!({ "from": "data", "task": "../x" })), ["task"]);
    assert_eq!(
        told(json!({ "from": "phantom", "phantom": { "cases": 0, "shape": [2, 38, 30] } })),
        ["phantom"; 2]
    );
    assert!(serde_json::from_value::<Params>(json!({ "from": "data", "strickt": true })).is_err());
}

#[test]
fn an_interrupted_import_stops() {
    let folder = Folder::with_cases(2);
    folder.space.interrupt();
    assert!(matches!(folder.import_with(&json!({})), Err(StageError::Interrupted)));
}

#[test]
fn a_phantom_is_the_same_every_time_and_reads_without_a_finding() {
    let params = json!({ "from": "phantom", "phantom": { "cases": 5, "shape": [18, 20, 18], "seed": 3 } });
    let [first, second] = [(); 2].map(|()| {
        let space = TestSpace::new();
        let run = space.run::<Import>(params.clone(), &[]).expect("a phantom is made");
        (["cases", "checks", "dataset"].map(|port| run.content(port)), run.load(&CASES), run.load(&CHECKS))
    });
    assert_eq!(first.0, second.0);
    assert_eq!(first.0[2].len(), 11);
    assert_eq!(first.2, CheckTable::default());
    let cases = &first.1.cases;
    assert_eq!(
        cases.iter().map(|case| case.patient.as_str()).collect::<Vec<_>>(),
        ["phantom_001-002", "phantom_001-002", "phantom_003-004", "phantom_003-004", "phantom_005-006"]
    );
    let digests: BTreeSet<_> = cases.iter().map(|case| case.voxels).collect();
    assert_eq!(digests.len(), 5);
    // The table names the generated files by their content.
    assert_eq!(first.0[2]["imagesTr/phantom_004.nii.gz"], cases[3].image().digest);
}
