//! Cases that a table lists.

use super::*;

/// A folder of images in many formats that other programs wrote.
pub(super) fn formats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("imaging/tests/imaging/formats")
}

/// A data set of copied files with a table.
struct Listed {
    space: TestSpace,
}

impl Listed {
    fn new(table: &str, files: &[(&str, &str)]) -> Self {
        let listed = Self { space: TestSpace::new() };
        fs::create_dir_all(listed.root()).expect("temporary folder");
        for (from, to) in files {
            let (from, to) = (formats().join(from), listed.root().join(to));
            if from.is_dir() {
                fs::create_dir_all(&to).expect("temporary folder");
                for entry in fs::read_dir(&from).expect("reference") {
                    let entry = entry.expect("reference");
                    fs::copy(entry.path(), to.join(entry.file_name())).expect("reference");
                }
            } else {
                fs::create_dir_all(to.parent().expect("a folder")).expect("temporary folder");
                fs::copy(from, to).expect("reference");
            }
        }
        fs::write(listed.root().join("cases.csv"), table).expect("a table is written");
        listed
    }

    fn root(&self) -> PathBuf {
        self.space.path().join("data")
    }

    fn import(&self) -> Result<TestRun, StageError> {
        self.space.run::<Import>(json!({ "from": self.root(), "table": "cases.csv" }), &[])
    }
}

#[test]
fn images_of_every_format_with_patients_and_classes_are_cases() {
    let table = "id,patient,image,class\n\
        a,p1,x/a.png,normal\n\
        b,p1,./x/b.nrrd,pneumonia\n\
        c,p2,x/c.mha,normal\n\
        d,,x/d.nii.gz,normal\n";
    let files = [
        ("grey_8.png", "x/a.png"),
        ("oblique.nrrd", "x/b.nrrd"),
        ("oblique.mha", "x/c.mha"),
        ("two_sform.nii.gz", "x/d.nii.gz"),
    ];
    let listed = Listed::new(table, &files);
    let run = listed.import().expect("sound");
    assert_eq!(findings(&run, ""), [""; 0]);
    let table = run.load(&CASES);
    let told: Vec<_> = table
        .cases
        .iter()
        .map(|case| {
            (case.id.as_str(), case.patient.as_str(), case.class.as_deref(), case.dtype.as_str(), case.shape)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a", "p1", Some("normal"), "uint8", [1, 5, 7]),
            ("b", "p1", Some("pneumonia"), "int16", [3, 4, 5]),
            ("c", "p2", Some("normal"), "int16", [3, 4, 5]),
            ("d", "d", Some("normal"), "int16", [2, 3, 4]),
        ]
    );
    assert_eq!(table.dataset.name, "cases");
}

#[test]
fn a_dicom_series_becomes_a_nifti_file_with_its_patient() {
    let listed = Listed::new("id,image,class\ns,scans/7,x\n", &[("dicom_oblique", "scans/7")]);
    let run = listed.import().expect("sound");
    assert_eq!(findings(&run, ""), [""; 0]);
    let table = run.load(&CASES);
    let case = table.get("s").expect("the case is there");
    assert_eq!((case.patient.as_str(), case.shape, case.dtype.as_str()), ("P-7", [3, 4, 5], "int16"));
    assert_eq!(case.image().path, "imagesTr/s.nii.gz");
    let made = run.dir("dataset").join("imagesTr/s.nii.gz");
    assert_eq!(hash_file(&made).expect("the file is there"), case.image().digest);
    let series =
        pipe_imaging::open::image(&formats().join("dicom_oblique"), pipe_imaging::open::Options::default());
    let series = series.expect("reference").volume;
    let written = nifti::read_image(&made).expect("readable");
    assert_eq!(written.as_slice(), series.as_slice());
    // NIfTI-1 holds f32: 30 mm to a few micrometres.
    assert!(written.geometry().affine.max_difference(&series.geometry().affine) < 1e-5);
}

#[test]
fn what_is_wrong_with_a_row_or_its_files_is_told_and_the_rest_goes_on() {
    let table = "id,image,label,age\n\
        good,ok.mha,,3\n\
        gone,nowhere.png,,3\n\
        good,other.png,,3\n\
        ../up,ok.mha,,3\n\
        half,split.mhd,,3\n\
        clear,clear.png,,3\n\
        mixed,ok.mha,mask.png,3\n\
        ,ok.mha,,3\n";
    let files = [
        ("oblique.mha", "ok.mha"),
        ("detached.mhd", "split.mhd"),
        ("detached.raw", "detached.raw"),
        ("transparent.png", "clear.png"),
        ("grey_8.png", "mask.png"),
    ];
    let listed = Listed::new(table, &files);
    let run = listed
        .space
        .run::<Import>(json!({ "from": listed.root(), "table": "cases.csv", "unlabelled": "keep" }), &[]);
    let run = run.expect("one case is sound");
    assert_eq!(ids(&run), ["good"]);
    assert_eq!(run.load(&CASES).cases[0].info, [("age".to_owned(), "3".to_owned())].into());
    for expected in [
        "Error nowhere.png is listed in cases.csv, but there is no such file Excluded",
        "Error cases.csv line 4: id `good` stands there twice; the first is used Skipped",
        "Error cases.csv line 5: id `../up` is no name of a file Skipped",
        "Error split.mhd cannot be read: its voxels lie in a second file, `detached.raw`; convert it to one file Excluded",
        "Error clear.png cannot be read: pixels are partly transparent, expected opaque ones Excluded",
        "Error mask.png image is 3×4×5 but its mask is 1×5×7 (z×y×x) Excluded",
        "Error cases.csv line 9 has no `id` Skipped",
    ] {
        check(&run, expected);
    }
}

#[test]
fn a_damaged_series_is_told_by_file_name_without_its_place() {
    let listed = Listed::new(
        "id,image,class\ns,scans,x\ngood,ok.mha,y\n",
        &[("dicom_oblique", "scans"), ("oblique.mha", "ok.mha")],
    );
    let slice =
        fs::read_dir(listed.root().join("scans")).expect("files").next().expect("a slice").expect("a slice");
    let bytes = fs::read(slice.path()).expect("a slice");
    fs::write(slice.path(), &bytes[..bytes.len() - 30]).expect("a shorter slice");
    let run = listed.import().expect("one case is sound");
    assert_eq!(ids(&run), ["good"]);
    let told = findings(&run, "element (7FE0,0010) declares 40 bytes, the file has 10 left Excluded");
    let name = slice.file_name().to_string_lossy().into_owned();
    assert!(told.len() == 1 && told[0].contains(&format!("cannot be read: `{name}`: ")), "{told:?}");
    let place = listed.root().to_string_lossy().into_owned();
    assert!(findings(&run, &place).is_empty());
}

#[test]
fn annotators_have_columns_of_their_own() {
    let listed = Listed::new(
        "id,image,label_Ann,label_bob,site\n\
        both,ok.mha,ann.nii.gz,bob.nii.gz,Basel\n\
        one,ok.mha,,bob.nii.gz,\n\
        none,ok.mha,,,Bern\n\
        lost,ok.mha,gone.nii.gz,bob.nii.gz,\n\
        large,ok.mha,large.nii.gz,bob.nii.gz,\n",
        &[("oblique.mha", "ok.mha")],
    );
    let grid =
        *pipe_imaging::open::image(&listed.root().join("ok.mha"), pipe_imaging::open::Options::default())
            .expect("reference")
            .volume
            .geometry();
    let write = |name: &str, grid: Geometry, value: u8| {
        let mut voxels = vec![0; grid.shape.voxels().expect("small")];
        voxels[7] = value;
        let label = LabelMap::from_vec(voxels, grid).expect("one label a voxel");
        nifti::write_label(&listed.root().join(name), &label).expect("a label is written");
    };
    write("ann.nii.gz", grid, 1);
    write("bob.nii.gz", grid, 3);
    write("large.nii.gz", Geometry::with_spacing([2, 2, 3], [1.0; 3]), 1);
    let run = listed.import().expect("two cases are sound");
    let table = run.load(&CASES);
    let told: Vec<_> = table
        .cases
        .iter()
        .map(|case| {
            let who: Vec<&str> = case.annotations.iter().map(|one| one.annotator.as_str()).collect();
            (case.id.as_str(), who, case.info.get("site").map(String::as_str))
        })
        .collect();
    assert_eq!(told, [("both", vec!["ann", "bob"], Some("Basel")), ("one", vec!["bob"], None)]);
    let file = &table.cases[0].annotations[1].file;
    assert_eq!(file.path, "bob.nii.gz");
    assert_eq!(file.digest, hash_file(&listed.root().join("bob.nii.gz")).expect("the file is there"));
    assert_eq!(table.cases[0].annotations[1].voxels, table.cases[1].annotations[0].voxels);
    assert_ne!(table.cases[0].annotations[0].voxels, table.cases[0].annotations[1].voxels);
    let values: Vec<u8> = table.dataset.labels.keys().copied().collect();
    assert_eq!(values, [0, 1, 3]);
    assert_eq!(findings(&run, "").len(), 3);
    check(&run, "Error gone.nii.gz is listed in cases.csv, but there is no such file Excluded");
    check(&run, "Error large.nii.gz image is 3×4×5 but its mask is 2×2×3 (z×y×x) Excluded");
    assert!(findings(&run, "image without label")[0].starts_with("Error ok.mha image without label: 3×4×5"));
}

#[test]
fn a_table_that_is_none_is_refused() {
    let refused = |table: &str| Listed::new(table, &[]).import().expect_err("no table").chain();
    assert!(
        refused("name,image\n").contains("`cases.csv` has no column `id`; its columns are `name`, `image`")
    );
    assert!(refused("id,image\na,b,c\n").contains("`cases.csv` is no table: "));
    assert!(refused("id,image,site,site\n").contains("`cases.csv` has two columns `site`"));
    let told = problems::<Import>(json!({ "from": "x", "table": "../cases.csv" }));
    assert_eq!(told[0].message, "`../cases.csv` is no path below `from`");
    let told = problems::<Import>(json!({ "from": "phantom", "table": "cases.csv" }));
    assert_eq!(told[0].parameter, "table");
}

#[test]
fn tables_of_excel_and_of_windows_are_read() {
    let check = |table: &str| {
        let listed = Listed::new(table, &[("oblique.mha", "x/Größe 1.mha")]);
        let run = listed.import().expect("sound");
        assert_eq!(findings(&run, ""), [""; 0]);
        let case = &run.load(&CASES).cases[0];
        let told =
            (case.id.as_str(), case.patient.as_str(), case.class.as_deref(), case.info["site"].as_str());
        assert_eq!(told, ("a", "p1", Some("x"), "1,5"));
    };
    check("\u{feff}ID;Patient;Image;Class;Site\r\na;p1;x/Größe 1.mha;x;1,5\r\n");
    check("id\tpatient\timage\tclass\tsite\na\tp1\t.\\x\\Größe 1.mha\tx\t1,5\n");
    check("id,patient,image,class,site\na,p1,x\\Größe 1.mha,x,\"1,5\"\n");
    let listed = Listed::new("", &[("oblique.mha", "ok.mha")]);
    fs::write(listed.root().join("cases.csv"), b"id,image\na,ok.mha\nGr\xf6\xdfe,ok.mha\n").expect("a table");
    let error = listed.import().expect_err("Latin-1").to_string();
    assert_eq!(error, "`cases.csv` is not UTF-8 from line 3 on: save it as UTF-8");
}
