//! DICOM against pydicom and SimpleITK, and series with every defect told by name.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use pipe_imaging::dicom::{self, MAX_VOXELS, Note, Slice, Stack};

use crate::formats::{EXPECTED, path};

#[test]
fn every_encoding_is_read_as_pydicom_and_simpleitk_read_it() {
    for expected in &EXPECTED.dicom {
        let name = &expected.folder;
        let series = dicom::series_in(&path(name)).expect(name);
        assert_eq!(series.facts.patient_id, expected.patient, "{name}");
        let stack = series.stack(MAX_VOXELS).expect(name);
        assert_eq!(stack.notes, [], "{name}");
        assert_eq!(stack.datatype().name(), expected.dtype, "{name}");
        let image = stack.read().expect(name);
        assert_eq!(image.shape().0, expected.shape_zyx, "{name}");
        // SimpleITK recomputes the directions from text of 16 characters.
        let difference = image.geometry().affine.max_difference(&expected.affine);
        assert!(difference < 1e-6, "{name}: affine differs by {difference}");
        // Decoders of lossy JPEG may round a cosine transform either way.
        let tolerance = if name.contains("baseline") { 1.0 } else { 0.0 };
        let differs =
            image.as_slice().iter().zip(&expected.values).position(|(a, b)| (a - b).abs() > tolerance);
        assert_eq!((image.as_slice().len(), differs), (expected.values.len(), None), "{name}");
    }
}

/// A plain file with the attributes of an axial MR slice, before anything is changed.
#[derive(Clone)]
struct File {
    elements: Vec<(u16, u16, [u8; 2], Vec<u8>)>,
}

impl File {
    fn slice(k: usize, position: [f64; 3]) -> Self {
        let text = |position: [f64; 3]| position.map(|v| v.to_string()).join("\\");
        let mut file = Self { elements: Vec::new() };
        file.set(0x0008, 0x0018, *b"UI", format!("1.2.3.{k}").into_bytes());
        file.set(0x0010, 0x0020, *b"LO", b"p1".to_vec());
        file.set(0x0018, 0x0050, *b"DS", b"2".to_vec());
        file.set(0x0020, 0x000E, *b"UI", b"1.2.3".to_vec());
        file.set(0x0020, 0x0032, *b"DS", text(position).into_bytes());
        file.set(0x0020, 0x0037, *b"DS", b"1\\0\\0\\0\\1\\0".to_vec());
        for (element, value) in
            [(0x0002, 1_u16), (0x0010, 2), (0x0011, 3), (0x0100, 16), (0x0101, 16), (0x0102, 15), (0x0103, 0)]
        {
            file.set(0x0028, element, *b"US", value.to_le_bytes().to_vec());
        }
        file.set(0x0028, 0x0030, *b"DS", b"1\\1".to_vec());
        file.set(0x7FE0, 0x0010, *b"OW", (0..6).flat_map(|v| (v + 10 * k as u16).to_le_bytes()).collect());
        file
    }

    fn set(&mut self, group: u16, element: u16, representation: [u8; 2], mut value: Vec<u8>) {
        if value.len() % 2 == 1 {
            value.push(if representation == *b"UI" { 0 } else { b' ' });
        }
        self.remove(group, element);
        self.elements.push((group, element, representation, value));
        self.elements.sort_by_key(|(group, element, ..)| (*group, *element));
    }

    fn with(mut self, group: u16, element: u16, representation: [u8; 2], value: &[u8]) -> Self {
        self.set(group, element, representation, value.to_vec());
        self
    }

    fn remove(&mut self, group: u16, element: u16) {
        self.elements.retain(|(g, e, ..)| (*g, *e) != (group, element));
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM");
        let syntax = (0x0002, 0x0010, *b"UI", b"1.2.840.10008.1.2.1\0".to_vec());
        for (group, element, representation, value) in [&syntax].into_iter().chain(&self.elements) {
            bytes.extend(group.to_le_bytes());
            bytes.extend(element.to_le_bytes());
            bytes.extend(representation);
            if representation == b"OW" {
                bytes.extend([0; 2]);
                bytes.extend((value.len() as u32).to_le_bytes());
            } else {
                bytes.extend((value.len() as u16).to_le_bytes());
            }
            bytes.extend(value);
        }
        bytes
    }
}

/// Four slices 2 mm apart, last first.
fn sound() -> Vec<File> {
    (0..4).rev().map(|k| File::slice(k, [5.0, 6.0, 2.0 * k as f64])).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn of(files: &[File]) -> Self {
        let folder = Self(tempfile::tempdir().expect("temporary folder"));
        for (index, file) in files.iter().enumerate() {
            folder.write(&format!("{index}.dcm"), &file.bytes());
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("temporary file");
        path
    }

    fn stack(&self) -> Result<Stack, dicom::Error> {
        dicom::series_in(self.path()).and_then(|series| series.stack(MAX_VOXELS))
    }
}

#[track_caller]
fn noted(files: &[File], expected: &[Note]) -> Stack {
    let stack = Folder::of(files).stack().expect("usable");
    assert_eq!(stack.notes, expected);
    stack
}

#[track_caller]
fn refused(files: &[File], message: &str) {
    let folder = Folder::of(files);
    let error = folder.stack().and_then(|stack| stack.read()).expect_err(message);
    assert_eq!(error.source().expect("cause").to_string(), message);
}

#[test]
fn slices_are_sorted_by_position_and_lie_where_they_say() {
    let folder = Folder::of(&sound());
    let stack = folder.stack().expect("sound");
    assert_eq!(stack.notes, []);
    let image = stack.read().expect("sound");
    assert_eq!(image.shape().0, [4, 2, 3]);
    let first_of_each: Vec<f32> = image.as_slice().iter().step_by(6).copied().collect();
    assert_eq!(first_of_each, [0.0, 10.0, 20.0, 30.0]);
    // LPS to RAS: x and y change their sign.
    assert_eq!(image.geometry().affine.apply([1.0, 1.0, 2.0]), [-6.0, -7.0, 4.0]);
    assert_eq!(image.geometry().orientation().to_string(), "LPS");
}

#[test]
fn a_missing_slice_is_told_with_its_neighbours() {
    let mut files = sound();
    files.remove(2);
    refused(&files, "1 slices are missing between `2.dcm` and `1.dcm`: 4.000 mm apart, the others 2.000 mm");
}

#[test]
fn uneven_distances_are_refused_and_nearly_even_ones_noted() {
    let at = |z: f64, k| File::slice(k, [0.0, 0.0, z]);
    refused(
        &[at(0.0, 0), at(2.0, 1), at(4.5, 2), at(6.5, 3)],
        "slices are 2.000 to 2.500 mm apart; a volume needs one distance",
    );
    let stack = noted(
        &[at(0.0, 0), at(2.0, 1), at(4.0625, 2)],
        &[Note::NearlyEven { least_mm: 2.0, most_mm: 2.0625 }],
    );
    assert_eq!(stack.geometry.spacing_mm(), [2.03125, 1.0, 1.0]);
    noted(&[at(0.0, 0), at(2.0, 1), at(4.005, 2)], &[]);
}

#[test]
fn the_same_slice_twice_is_dropped_and_another_one_in_its_place_is_refused() {
    let mut files = sound();
    files.push(files[1].clone());
    let stack = noted(&files, &[Note::Duplicate { kept: "1.dcm".into(), dropped: "4.dcm".into() }]);
    assert_eq!(stack.slices.len(), 4);
    files[4].set(0x7FE0, 0x0010, *b"OW", vec![9; 12]);
    refused(
        &files,
        "`1.dcm` and `4.dcm` lie at the same place with different pixels: several time points or echoes in one series; put each into its own folder",
    );
}

#[test]
fn a_tilted_gantry_is_refused_with_its_angle() {
    let files: Vec<File> = (0..4).map(|k| File::slice(k, [0.0, k as f64, 2.0 * k as f64])).collect();
    refused(
        &files,
        "slices shift by 3.00 mm within their plane from first to last (gantry tilt of 26.6°): straighten the series first, e.g. with `dcm2niix`",
    );
    let mut files = sound();
    files[1] = File::slice(2, [5.0, 7.0, 4.0]);
    refused(&files, "`1.dcm` lies 1.00 mm beside the line through the other slices");
}

#[test]
fn a_localizer_in_the_series_makes_a_second_volume_and_both_say_so() {
    let mut files = sound();
    files.push(File::slice(9, [0.0; 3]).with(0x0020, 0x0037, *b"DS", b"0\\1\\0\\0\\0\\-1"));
    let folder = Folder::of(&files);
    let scan = dicom::scan(dicom::files_in(folder.path()).expect("files"));
    let sizes: Vec<usize> = scan.series.iter().map(|series| series.slices.len()).collect();
    assert_eq!(sizes, [1, 4]);
    for series in &scan.series {
        assert_eq!(series.stack(MAX_VOXELS).expect("each is sound").notes, [Note::Mixed { volumes: 2 }]);
    }
    let error = dicom::series_in(folder.path()).expect_err("two volumes");
    assert_eq!(
        error.fault().to_string(),
        "2 series lie here, expected 1: `1.2.3` of 1×2×3, `1.2.3` of 4×2×3"
    );
}

#[test]
fn two_patients_in_one_series_are_refused() {
    let mut files = sound();
    files[3].set(0x0010, 0x0020, *b"LO", b"p2".to_vec());
    refused(&files, "the series holds slices of the patients `p1` and `p2`");
}

#[test]
fn a_radiograph_has_a_spacing_but_no_place() {
    let mut file = File::slice(0, [0.0; 3]).with(0x0028, 0x0004, *b"CS", b"MONOCHROME1");
    for element in [0x0032, 0x0037] {
        file.remove(0x0020, element);
    }
    file.remove(0x0028, 0x0030);
    file.set(0x0018, 0x1164, *b"DS", b"0.5\\0.25".to_vec());
    let stack = noted(&[file.clone()], &[Note::Inverted, Note::NoPosition]);
    // As ITK places it: columns to the left, rows to the back.
    assert_eq!(stack.geometry.affine.apply([4.0, 2.0, 1.0]), [-1.0, -1.0, 2.0]);
    let other = file.clone().with(0x0008, 0x0018, *b"UI", b"1.2.3.9");
    refused(
        &[file, other],
        "`0.dcm` has no ImagePositionPatient and ImageOrientationPatient, so 2 slices cannot be ordered",
    );
}

#[test]
fn voxels_that_no_body_has_are_refused() {
    let one = || File::slice(0, [0.0; 3]);
    let no_body =
        |said: &str| format!("the affine has voxels of {said} mm (z×y×x), expected 1e-7 to 1000 mm");
    refused(&[one().with(0x0028, 0x0030, *b"DS", b"1\\1e30 ")], &no_body("2×1×1e30"));
    refused(&[one().with(0x0028, 0x0030, *b"DS", b"1e-9\\1 ")], &no_body("2×1e-9×1"));
    refused(&[one().with(0x0018, 0x0050, *b"DS", b"1e30")], &no_body("1e30×1×1"));
    for size in ["0\\1 ", "1\\-1"] {
        let numbers: Vec<f64> = size.trim().split('\\').map(|part| part.parse().expect("a number")).collect();
        let message = format!("PixelSpacing (0028,0030) is `{numbers:?}`, expected two positive numbers");
        refused(&[one().with(0x0028, 0x0030, *b"DS", size.as_bytes())], &message);
    }
    let message =
        "PixelSpacing (0028,0030) is `nan\\1`, expected finite numbers, as many as the standard asks for";
    refused(&[one().with(0x0028, 0x0030, *b"DS", b"nan\\1 ")], message);
    // Of one slice: 1 mm is taken, and that is told.
    noted(&[one().with(0x0018, 0x0050, *b"DS", b"-2")], &[Note::NoThickness]);
}

#[test]
fn what_is_not_read_is_told_by_name() {
    let one = || File::slice(0, [0.0; 3]);
    let alone = |file: File, message: &str| {
        let folder = Folder::of(&[file]);
        let error = Slice::read(&folder.path().join("0.dcm")).expect_err(message);
        assert_eq!(error.fault().to_string(), message);
    };
    alone(
        one().with(0x0028, 0x0008, *b"IS", b"40"),
        "the file holds 40 frames; split it into one file a slice, e.g. with `emf2sf`, or convert it to NIfTI",
    );
    alone(
        one().with(0x0028, 0x0002, *b"US", &[3, 0]).with(0x0028, 0x0004, *b"CS", b"RGB "),
        "pixels have 3 samples (RGB), expected 1 (grey)",
    );
    alone(
        one().with(0x0028, 0x1053, *b"DS", b"0 "),
        "RescaleSlope (0028,1053) is `0`, expected a number other than 0",
    );
    alone(
        one().with(0x0028, 0x1053, *b"DS", b"nan "),
        "RescaleSlope (0028,1053) is `nan`, expected a number",
    );
    alone(one().with(0x0028, 0x0010, *b"US", &[0, 0]), "Rows (0028,0010) is `0`, expected at least 1");
    alone(one().with(0x0028, 0x0010, *b"US", &[0, 255]), "65280×3 pixels take 391680 bytes, the file has 12");
    alone(
        one().with(0x0028, 0x0102, *b"US", &[14, 0]),
        "pixels of 16 bits with 16 stored up to bit 14 are not supported, expected 8, 16 or 32 bits with the value in the lowest",
    );
    let mut report = one();
    report.remove(0x7FE0, 0x0010);
    alone(report, "holds no pixels");
    let mut unsized_image = one();
    unsized_image.remove(0x0028, 0x0011);
    alone(unsized_image, "Columns (0028,0011) is missing");
    let folder = Folder::of(&[one()]);
    for (uid, message) in [
        (
            "1.2.840.10008.1.2.4.90",
            "transfer syntax 1.2.840.10008.1.2.4.90 (JPEG 2000) is not supported; convert it, e.g. with `gdcmconv --raw`",
        ),
        ("1.2.840.10008.1.2.4.50", "the pixels are plain, but the transfer syntax says they are compressed"),
    ] {
        let bytes = one().bytes();
        let mut changed = bytes[..140].to_vec();
        changed[138] = uid.len() as u8;
        changed.extend(uid.as_bytes());
        changed.extend(&bytes[160..]);
        let error = Slice::read(&folder.write("x.dcm", &changed)).expect_err(message);
        assert_eq!(error.fault().to_string(), message);
    }
}

#[test]
fn files_that_are_no_images_are_passed_over_with_their_reason() {
    let folder = Folder::of(&sound());
    folder.write("notes.txt", b"hello");
    folder.write(".DS_Store", b"x");
    let scan = dicom::scan(dicom::files_in(folder.path()).expect("files"));
    assert_eq!((scan.series.len(), scan.skipped.len()), (1, 1));
    assert_eq!(scan.skipped[0].fault().to_string(), "not a DICOM file: `DICM` is missing at byte 128");
    assert!(folder.stack().is_ok());
    let empty = Folder::of(&[]);
    empty.write("notes.txt", b"hello");
    let text = empty.stack().expect_err("no image").fault().to_string();
    assert!(text.starts_with("no DICOM image among 1 files; the first: "), "{text}");
}

#[test]
fn a_damaged_slice_is_an_error_not_a_shorter_series() {
    let mut cut = sound()[0].bytes();
    cut.pop();
    for bytes in [cut, Vec::new()] {
        let folder = Folder::of(&sound()[1..]);
        folder.write("last.dcm", &bytes);
        let error = folder.stack().expect_err("a slice is damaged");
        assert_eq!(error.path(), folder.path().join("last.dcm"));
    }
}

#[test]
fn truncation_is_told_at_every_length() {
    let whole = sound()[0].bytes();
    let folder = Folder::of(&[]);
    for length in 0..whole.len() {
        let path = folder.write("cut.dcm", &whole[..length]);
        assert!(Slice::read(&path).is_err(), "{length} bytes");
    }
}
