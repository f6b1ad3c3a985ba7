//! MedMNIST archives against NumPy.

use std::error::Error as _;
use std::io::Write;
use std::path::Path;

use pipe_imaging::npz::{Archive, Error};

use crate::formats::path;

fn images(archive: &mut Archive, split: usize) -> Vec<Vec<u8>> {
    let mut images = Vec::new();
    let split = archive.splits[split].clone();
    let each = |index: usize, voxels: &[u8]| {
        assert_eq!(index, images.len());
        images.push(voxels.to_vec());
        Ok::<(), Error>(())
    };
    archive.for_each_image(&split, each).expect("sound");
    images
}

#[test]
fn splits_images_and_labels_are_those_that_numpy_wrote() {
    let mut archive = Archive::open(&path("medmnist.npz"), 100).expect("sound");
    let splits: Vec<_> =
        archive.splits.iter().map(|s| (s.name, s.images, s.shape, s.labels.clone())).collect();
    let shape = [1, 2, 3];
    assert_eq!(
        splits,
        [("train", 3, shape, vec![0, 1, 2]), ("val", 2, shape, vec![0, 1]), ("test", 1, shape, vec![0])]
    );
    assert_eq!(images(&mut archive, 0), [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17]]);
    assert_eq!(images(&mut archive, 2), [[0, 1, 2, 3, 4, 5]]);
}

#[test]
fn images_in_colour_have_three_channels() {
    let mut archive = Archive::open(&path("colour.npz"), 100).expect("sound");
    assert_eq!((archive.splits[0].shape, archive.splits[0].channels), ([1, 2, 2], 3));
    let stored: Vec<u8> = (0..24).collect();
    assert_eq!(images(&mut archive, 0).concat(), stored);
}

#[track_caller]
fn refused(file: &Path, max_voxels: usize, message: &str) {
    let error = Archive::open(file, max_voxels).err().expect(message);
    assert_eq!(error.source().expect("cause").to_string(), message);
}

#[test]
fn archives_of_another_kind_are_told() {
    refused(&path("other.npz"), 100, "no array is called train_images, val_images or test_images; found: a");
    refused(&path("colour.npz"), 11, "array `train_images.npy` has 12 voxels an image, the limit is 11");
    refused(&path("unequal.npz"), 100, "`train` has 2 images and 1 labels");
    refused(&path("medmnist.npz"), 5, "array `train_images.npy` has 6 voxels an image, the limit is 5");
    let text =
        Archive::open(&path("grey_8.png"), 5).err().expect("no archive").source().expect("cause").to_string();
    assert!(text.starts_with("not a sound .npz archive: "), "{text}");
}

/// An archive whose array declares `shape` and holds `bytes`.
fn archive(shape: &str, bytes: usize) -> tempfile::NamedTempFile {
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    header += &" ".repeat(117 - header.len());
    header.push('\n');
    let mut array = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    array.extend(header.as_bytes());
    array.extend(vec![0; bytes]);
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let mut zip = zip::ZipWriter::new(file.reopen().expect("temporary file"));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("train_images.npy", options).expect("in a file");
    zip.write_all(&array).expect("in a file");
    zip.finish().expect("in a file");
    file
}

#[test]
fn an_array_that_declares_more_than_the_archive_holds_is_refused() {
    refused(
        archive("(1000000000000, 28, 28)", 64).path(),
        1000,
        "array `train_images.npy` declares 784000000000000 bytes, the archive has 64",
    );
    refused(
        archive("(1, 4, 4)", 64).path(),
        1000,
        "array `train_images.npy` declares 16 bytes, the archive has 64",
    );
    refused(archive("(4, 4, 4)", 64).path(), 1000, "there is no array `train_labels.npy`");
}
