//! The real data set, where it is at hand: `$PIPE_TEST_DATA`, or `shared/data` beside the workspace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipe_imaging::check::{check_header, check_pair};
use pipe_imaging::components::components;
use pipe_imaging::npz::{Archive, Error};
use pipe_imaging::{dicom, digest, nifti};

/// The data directory, or `None` with a loud note.
#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PIPE_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there; set PIPE_TEST_DATA", path.display());
    None
}

fn volumes(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("directory");
    let mut paths: Vec<_> = entries.map(|e| e.expect("entry").path()).collect();
    paths.retain(|p| p.to_string_lossy().ends_with(".nii.gz"));
    paths.sort();
    paths
}

#[test]
fn every_case_of_the_hippocampus_set_is_sound_and_distinct() {
    let Some(root) = data("Task04_Hippocampus") else { return };
    let allowed = BTreeSet::from([0, 1, 2]);
    let mut digests = BTreeSet::new();
    let images = volumes(&root.join("imagesTr"));
    assert!(images.len() >= 100, "{} images", images.len());
    for path in &images {
        let name = path.file_name().expect("file");
        let image = nifti::read_image(path).expect("image");
        let label = nifti::read_label(&root.join("labelsTr").join(name)).expect("label");
        assert_eq!(check_pair(&image, &label, Some(&allowed)), [], "{}", name.display());
        assert_eq!(check_header(&nifti::read_header(path).expect("header")), [], "{}", name.display());
        assert!(digests.insert(digest::image_digest(&image)), "{} is a duplicate", name.display());
    }
}

#[test]
fn case_156_has_a_detached_piece_of_label_1() {
    let Some(root) = data("Task04_Hippocampus") else { return };
    let path = root.join("labelsTr/hippocampus_156.nii.gz");
    if !path.exists() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return;
    }
    let pieces = components(&nifti::read_label(&path).expect("label"));
    assert_eq!((pieces[&1].len(), pieces[&2].len()), (2, 1), "{pieces:?}");
}

#[test]
fn the_duplicate_label_among_the_defects_is_found_by_digest() {
    let (Some(defects), Some(root)) = (data("Task04_Hippocampus_defects"), data("Task04_Hippocampus")) else {
        return;
    };
    let copy = nifti::read_label(&defects.join("labels/hippocampus_010.nii.gz")).expect("copy");
    let original = nifti::read_label(&root.join("labelsTr/hippocampus_011.nii.gz")).expect("original");
    assert_eq!(digest::label_digest(&copy), digest::label_digest(&original));
    let foreign = nifti::read_header(&defects.join("labels/hippocampus_281.nii.gz")).expect("foreign");
    assert_eq!(foreign.geometry.shape.0, [94, 512, 512]);
}

#[test]
fn the_hippocampus_series_are_sorted_by_position_not_by_name() {
    let Some(root) = data("dicom_hcrop") else { return };
    // Sum of all voxels and size by SimpleITK's series reader.
    for (folder, patient, shape, sum) in [
        ("Study1/13_HCropVolume", "PGBM-002", [32, 51, 35], 3_346_681.0),
        ("Study2/14_HCropVolume", "PGBM-006", [35, 48, 36], 40_238_527.0),
        ("Study3/11_HCropVolume", "PGBM-003", [40, 50, 34], 4_453_961.0),
    ] {
        let series = dicom::series_in(&root.join(folder)).expect(folder);
        let stack = series.stack(dicom::MAX_VOXELS).expect(folder);
        assert_eq!((series.facts.patient_id.as_str(), &stack.notes[..]), (patient, &[][..]), "{folder}");
        let image = stack.read().expect(folder);
        assert_eq!(image.shape().0, shape, "{folder}");
        assert_eq!(image.as_slice().iter().map(|&v| f64::from(v)).sum::<f64>(), sum, "{folder}");
        assert_eq!(image.geometry().affine.apply([1.0, 2.0, 0.0]), [-1.0, -2.0, 1.0], "{folder}");
    }
}

#[test]
fn pneumonia_mnist_has_the_images_and_labels_that_numpy_reads() {
    let Some(root) = data("PneumoniaMNIST") else { return };
    let mut archive = Archive::open(&root.join("pneumoniamnist.npz"), 1 << 20).expect("sound");
    let mut found = Vec::new();
    for split in archive.splits.clone() {
        let mut sum = 0_u64;
        let each = |_, voxels: &[u8]| {
            sum += voxels.iter().map(|&v| u64::from(v)).sum::<u64>();
            Ok::<(), Error>(())
        };
        archive.for_each_image(&split, each).expect("sound");
        found.push((split.images, sum, split.labels.iter().map(|&label| u32::from(label)).sum::<u32>()));
    }
    assert_eq!(found, [(4_708, 538_305_934, 3494), (262, 29_718_361, 195), (262, 29_905_729, 194)]);
}
