//! A network of PyTorch, and images straight from a scanner: what comes in from other programs.
//!
//! `tests/cases/models/rounding.onnx` gives each voxel its value, rounded, as class.

use crate::golden::cases;
use crate::space::{Report, TestSpace};
use crate::volume::{dicom, nifti};
use std::fs;
#[cfg(target_os = "linux")]
use std::process::Stdio;

const CLASSES: u8 = 32;

/// A space with the network as a predictor in `results/p/model`.
fn imported() -> TestSpace {
    let labels: Vec<String> = (0..CLASSES).map(|value| format!("class{value}: {value}")).collect();
    let labels = labels.join(", ");
    let mut space = TestSpace::new(&format!(
        "name: p
stages:
  model: {{ uses: import-model, with: {{ file: rounding.onnx, labels: {{ {labels} }}, patch: [8, 32, 32], normalize: none }} }}
"
    ));
    for name in ["HOME", "XDG_CACHE_HOME", "PIPE_HOME", "ORT_DYLIB_PATH"] {
        if let Ok(value) = std::env::var(name) {
            space.set_env(name, &value);
        }
    }
    space.write("rounding.onnx", fs::read(cases("models").join("rounding.onnx")).unwrap());
    space.run(&[]).code(0);
    space
}

/// Whole numbers that stand for nothing, below the number of classes.
fn voxels(count: usize) -> Vec<u8> {
    (0..count as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8 % CLASSES).collect()
}

#[track_caller]
fn predict(space: &TestSpace, arguments: &[&str]) -> Report {
    let report = space.pipe(&[&["predict", "results/p/model"], arguments].concat());
    report.code(0);
    report
}

/// The voxels of an uncompressed NIfTI file of bytes.
#[track_caller]
fn labels(space: &TestSpace, name: &str) -> Vec<u8> {
    let bytes = fs::read(space.path(name)).unwrap();
    assert_eq!(i16::from_le_bytes([bytes[70], bytes[71]]), 2, "the labels are bytes");
    bytes[352..].to_vec()
}

#[test]
fn a_network_of_pytorch_predicts_with_what_the_pipeline_says_of_it() {
    let space = imported();
    let (shape, found) = ([40, 37, 11], voxels(40 * 37 * 11));
    space.write("image.nii", nifti(shape, [1.0, 1.5, 2.0], &found));
    predict(&space, &["image.nii", "-o", "labels.nii"]);
    assert_eq!(labels(&space, "labels.nii"), found);
    // Whatever the patches, and however they are weighed.
    predict(&space, &["image.nii", "-o", "monai.nii", "--tiling", "monai", "--overlap", "0.3"]);
    assert_eq!(labels(&space, "monai.nii"), found);
}

#[test]
fn a_dicom_series_is_predicted_as_the_same_image_in_nifti() {
    let space = imported();
    let (shape, spacing_mm) = ([21, 34, 9], [0.75, 1.25, 2.5]);
    let found = voxels(21 * 34 * 9);
    space.write("image.nii", nifti(shape, spacing_mm, &found));
    for (k, slice) in dicom(shape, spacing_mm, &found).into_iter().enumerate() {
        // The names say nothing about the order.
        let name = format!("IM{:03}", (k * 5) % 9);
        space.write(&format!("scan/{name}"), &slice);
        space.write(&format!("export/alice/mr/{name}"), &slice);
        space.write(&format!("export/bob/{name}"), &slice);
    }
    predict(&space, &["image.nii", "-o", "labels.nii"]);
    assert_eq!(labels(&space, "labels.nii"), found);

    // One series is one case, called like its folder; of a folder with several, each is one.
    predict(&space, &["scan", "-o", "one"]);
    assert_eq!(space.files("one"), ["scan.nii.gz"]);
    predict(&space, &["scan", "-o", "scan.nii"]);
    let same =
        |name: &str| fs::read(space.path(name)).unwrap() == fs::read(space.path("labels.nii")).unwrap();
    assert!(same("scan.nii"), "grid or labels differ");
    space.write("export/DICOMDIR", &dicom([1, 1, 1], spacing_mm, &[0])[0]);
    predict(&space, &["export", "-o", "two"]);
    assert_eq!(space.files("two"), ["alice_mr.nii.gz", "bob.nii.gz"]);

    // A slice that is missing is no image.
    fs::remove_file(space.path("scan/IM000")).unwrap();
    fs::remove_file(space.path("scan/IM002")).unwrap();
    let report = space.pipe(&["predict", "results/p/model", "scan", "-o", "gap.nii"]);
    report.code(1).says("scan: ");
    assert!(!space.exists("gap.nii"));
}

/// The most memory that a call held at once, in bytes, as the kernel counts it.
#[cfg(target_os = "linux")]
#[track_caller]
fn peak_bytes(space: &TestSpace, arguments: &[&str]) -> u64 {
    let mut command = space.command(&[&["predict", "results/p/model"], arguments].concat());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // The mark only rises, so that the last look before the end is what counts.
    let code = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kibibytes.unwrap_or(0) * 1024);
        if let Some(code) = child.try_wait().unwrap() {
            break code;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    assert!(code.success() && peak > 0, "{code}, peak {peak}");
    peak
}

/// Of 32 classes, probabilities alone would take 128 bytes a voxel; and they do where they are asked for, which shows that the
/// figures tell one from the other.
#[cfg(target_os = "linux")]
#[test]
fn memory_grows_by_image_and_labels_alone_not_by_classes() {
    const SIDE: usize = 112;
    let space = imported();
    // Bytes that a voxel more takes: what the program takes whatever the image falls out.
    let growth = |few: usize, many: usize, arguments: &[&str]| {
        let [below, above] = [few, many].map(|depth| {
            let (image, labels) = (format!("{depth}.nii"), format!("labels_{depth}.nii"));
            let shape = [SIDE, SIDE, depth];
            space.write(&image, nifti(shape, [1.0; 3], &voxels(shape.iter().product())));
            let own = [image.as_str(), "-o", &labels, "--force", "-j", "2"];
            peak_bytes(&space, &[own.as_slice(), arguments].concat())
        });
        (above as f64 - below as f64) / (SIDE * SIDE * (many - few)) as f64
    };
    let usual = growth(24, 120, &[]);
    // The image as read and as prepared, 4 bytes each; its file and the labels, 1 byte each, perhaps twice.
    assert!(usual < 20.0, "{usual:.1} bytes a voxel");
    let whole = growth(16, 40, &["--probabilities"]);
    assert!(whole > 120.0, "{whole:.1} bytes a voxel");
}
