//! What the crate `nifti` does with inputs that the guard in `src/nifti` keeps from it, told in `docs/nifti-crate.md`.
//!
//! A test that fails after an update of the crate means that a part of the guard can go.

use std::io::Write;
use std::panic::catch_unwind;

use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::Array3;
use nifti::writer::WriterOptions;
use nifti::{InMemNiftiVolume, IntoNdArray, NiftiHeader, NiftiObject, ReaderOptions};

use crate::reference::directory;

/// 2×3×4 voxels of float32 behind 352 bytes.
fn plain() -> Vec<u8> {
    std::fs::read(directory().join("float32_plain.nii")).expect("reference")
}

fn patched(at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = plain();
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

/// What the crate makes of a file, every value in f64, in the order of the file.
fn by_the_crate(bytes: &[u8], name: &str) -> nifti::Result<Vec<f64>> {
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("temporary file");
    let array = ReaderOptions::new().read_file(&path)?.into_volume().into_ndarray::<f64>()?;
    Ok(array.t().iter().copied().collect())
}

#[test]
fn a_sound_file_is_read_by_the_crate_as_by_us() {
    let ours = pipe_imaging::nifti::decode_image(&plain(), 24).expect("sound");
    let values: Vec<f32> =
        by_the_crate(&plain(), "a.nii").expect("sound").into_iter().map(|value| value as f32).collect();
    assert_eq!(values, ours.as_slice());
}

#[test]
fn vox_offset_without_an_extension_is_ignored() {
    let mut bytes = patched(108, &368_f32.to_le_bytes());
    bytes.splice(352..352, [0; 16]);
    let values = by_the_crate(&bytes, "a.nii").expect("read without a word");
    let truth = by_the_crate(&plain(), "a.nii").expect("sound");
    assert_eq!(values[..4], [0.0; 4], "the gap");
    assert_eq!(values[4..], truth[..20]);
}

#[test]
fn a_vox_offset_that_is_no_number_is_accepted() {
    assert!(by_the_crate(&patched(108, &f32::NAN.to_le_bytes()), "a.nii").is_ok());
}

#[test]
fn a_slope_of_nan_makes_every_voxel_nan() {
    // nibabel takes a slope that is not finite for none.
    let values = by_the_crate(&patched(112, &f32::NAN.to_le_bytes()), "a.nii").expect("read without a word");
    assert!(values.iter().all(|value| value.is_nan()));
}

#[test]
fn bitpix_that_contradicts_datatype_is_a_panic() {
    let bytes = patched(72, &16_i16.to_le_bytes());
    assert!(catch_unwind(|| by_the_crate(&bytes, "a.nii")).is_err());
}

#[test]
fn a_negative_dimension_is_taken_for_a_large_one() {
    let header = NiftiHeader::from_reader(&patched(42, &(-3_i16).to_le_bytes())[..]).expect("parsed");
    assert_eq!(header.dim().expect("taken as it is")[0], 65533);
}

#[test]
fn a_header_with_a_size_of_another_byte_order_is_accepted() {
    let bytes = patched(0, &348_i32.to_be_bytes());
    assert!(NiftiHeader::from_reader(&bytes[..]).is_ok());
}

#[test]
fn what_a_header_declares_is_reserved_before_anything_is_read() {
    let mut header = NiftiHeader::from_reader(&plain()[..]).expect("sound");
    header.dim = [4, 30_000, 30_000, 30_000, 30, 1, 1, 1];
    let error = InMemNiftiVolume::from_reader(&[][..], &header).expect_err("3·10¹⁵ bytes");
    assert!(matches!(error, nifti::NiftiError::ReserveVolume(..)), "{error}");
}

#[test]
fn the_second_member_of_a_gzip_file_is_not_read() {
    let plain = plain();
    let mut members = Vec::new();
    for part in [&plain[..400], &plain[400..]] {
        let mut member = GzEncoder::new(Vec::new(), Compression::fast());
        member.write_all(part).expect("in memory");
        members.extend(member.finish().expect("in memory"));
    }
    assert!(by_the_crate(&members, "a.nii.gz").is_err());
    assert!(pipe_imaging::nifti::decode_image(&members, 24).is_ok());
}

#[test]
fn a_name_with_a_dot_is_shortened() {
    let folder = tempfile::tempdir().expect("temporary directory");
    WriterOptions::new(folder.path().join("a.b.nii"))
        .write_nifti(&Array3::<u8>::zeros((1, 1, 1)))
        .expect("written");
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).expect("folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["a.nii"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_uncompressed_file_on_a_full_disk_is_no_error() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("full.nii");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    WriterOptions::new(&path)
        .write_nifti(&Array3::<u8>::zeros((2, 2, 2)))
        .expect("the last flush is not asked");
}

#[test]
fn an_axis_of_more_than_65535_wraps_around() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("long.nii");
    WriterOptions::new(&path).write_nifti(&Array3::<u8>::zeros((65_537, 1, 1))).expect("written");
    assert_eq!(NiftiHeader::from_file(&path).expect("parsed").dim[1], 1);
}
