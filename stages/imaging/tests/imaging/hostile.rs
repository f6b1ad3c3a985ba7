//! Files that lie, are cut or are made to hurt: an error that names the lie, no panic, no memory for what is not there.
//! Thousands of random ones are in `tests/mutants.rs`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use pipe_imaging::nifti::{self, Fault, MAX_VOXELS};

use crate::reference::directory;

fn plain() -> Vec<u8> {
    std::fs::read(directory().join("float32_plain.nii")).expect("reference")
}

fn patched(patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = plain();
    for (at, value) in patches {
        bytes[*at..*at + value.len()].copy_from_slice(value);
    }
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

#[track_caller]
fn refused(bytes: &[u8], message: &str) {
    let fault = nifti::decode_image(bytes, MAX_VOXELS).expect_err(message);
    assert_eq!(fault.to_string(), message);
}

#[test]
fn bitpix_that_contradicts_datatype_is_refused() {
    refused(&patched(&[(72, &16_i16.to_le_bytes())]), "bitpix is 16 but voxels of type float32 have 32 bits");
    refused(
        &patched(&[(72, &(-32_i16).to_le_bytes())]),
        "bitpix is -32 but voxels of type float32 have 32 bits",
    );
}

#[test]
fn vox_offset_is_obeyed_and_must_make_sense() {
    // The same voxels, 16 bytes further on, without any extension.
    let mut shifted = patched(&[(108, &368_f32.to_le_bytes())]);
    shifted.splice(352..352, [0xAB; 16]);
    let original = nifti::decode_image(&plain(), MAX_VOXELS).expect("original");
    assert_eq!(nifti::decode_image(&shifted, MAX_VOXELS).expect("shifted"), original);
    for (offset, text) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (-352.0, "-352"),
        (0.0, "0"),
        (351.0, "351"),
        (352.5, "352.5"),
        (1e9, "1000000000"),
    ] {
        let message = format!("vox_offset is {text}, expected a whole number of at least 352");
        refused(&patched(&[(108, &offset.to_le_bytes())]), &message);
    }
    refused(
        &patched(&[(108, &16_000_000_f32.to_le_bytes())]),
        "the header declares 16000096 bytes, which a file of 448 bytes cannot hold",
    );
}

#[test]
fn dimensions_that_are_not_dimensions_are_refused() {
    let dims = |values: [i16; 8]| values.map(i16::to_le_bytes).concat();
    refused(
        &patched(&[(40, &dims([3, 4, -3, 2, 1, 1, 1, 1]))]),
        "dim [3, 4, -3, 2, 1, 1, 1, 1] is not 1 to 7 positive dimensions",
    );
    refused(
        &patched(&[(40, &dims([3, 4, 0, 2, 1, 1, 1, 1]))]),
        "dim [3, 4, 0, 2, 1, 1, 1, 1] is not 1 to 7 positive dimensions",
    );
    refused(
        &patched(&[(40, &dims([0, 4, 3, 2, 1, 1, 1, 1]))]),
        "dim [0, 4, 3, 2, 1, 1, 1, 1] is not 1 to 7 positive dimensions",
    );
    refused(
        &patched(&[(40, &dims([5, 4, 3, 2, 2, 2, 1, 1]))]),
        "dim [5, 4, 3, 2, 2, 2, 1, 1] has more than four dimensions in use",
    );
    let all = dims([7, 32767, 32767, 32767, 32767, 1, 1, 1]);
    refused(
        &patched(&[(40, &all)]),
        "the header declares 1152780773560811521 voxels, the limit is 536870912",
    );
    // Out of range in both byte orders, then in range in the other one only.
    refused(&patched(&[(40, &[9, 9])]), "the header's size and its rank of 2313 are of different byte order");
    refused(&patched(&[(40, &[0, 3])]), "the header's size and its rank of 768 are of different byte order");
}

#[test]
fn a_header_cannot_declare_more_than_the_file_can_hold() {
    let dims = [3_i16, 800, 800, 800, 1, 1, 1, 1].map(i16::to_le_bytes).concat();
    let lying = patched(&[(40, &dims)]);
    refused(&lying, "the header declares 2048000352 bytes, which a file of 448 bytes cannot hold");
    let packed = gzip(&lying);
    let fault = nifti::decode_image(&packed, MAX_VOXELS).expect_err("gzip cannot hold it either");
    assert!(matches!(fault, Fault::Implausible { declared: 2_048_000_352, .. }), "{fault}");
}

#[test]
fn a_limit_on_voxels_is_kept() {
    let fault = nifti::decode_image(&plain(), 23).expect_err("24 voxels");
    assert_eq!(fault.to_string(), "the header declares 24 voxels, the limit is 23");
    assert!(nifti::decode_image(&plain(), 24).is_ok());
}

#[test]
fn a_gzip_bomb_is_refused_by_its_header_and_costs_nothing() {
    // 1000³ bytes of zeros behind a true header, as a 1 MB file would hold them.
    let dims = [3_i16, 1000, 1000, 1000, 1, 1, 1, 1].map(i16::to_le_bytes).concat();
    let header = patched(&[(40, &dims), (70, &2_i16.to_le_bytes()), (72, &8_i16.to_le_bytes())]);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&header[..352]).expect("in memory");
    for _ in 0..256 {
        bomb.write_all(&[0; 1 << 14]).expect("in memory");
    }
    let bomb = bomb.finish().expect("in memory");
    let fault = nifti::decode_image(&bomb, MAX_VOXELS).expect_err("10⁹ voxels");
    assert_eq!(fault.to_string(), "the header declares 1000000000 voxels, the limit is 536870912");
    // A bomb behind the last voxel is not inflated to its end.
    let mut tail = GzEncoder::new(Vec::new(), Compression::fast());
    tail.write_all(&plain()).expect("in memory");
    for _ in 0..256 {
        tail.write_all(&[0; 1 << 14]).expect("in memory");
    }
    refused(
        &tail.finish().expect("in memory"),
        "the header declares 96 bytes of voxels, but more data follow",
    );
}

#[test]
fn zero_padding_after_the_voxels_is_accepted_and_data_are_not() {
    let mut padded = plain();
    padded.extend([0; 1000]);
    assert!(nifti::decode_image(&padded, MAX_VOXELS).is_ok());
    padded.push(1);
    refused(&padded, "the header declares 96 bytes of voxels, but more data follow");
}

#[test]
fn truncation_is_told_at_every_length() {
    let whole = plain();
    refused(&whole[..0], "the file has 0 bytes, a NIfTI header has 348");
    refused(&whole[..347], "the file has 347 bytes, a NIfTI header has 348");
    refused(&whole[..447], "the header declares 448 bytes, which a file of 447 bytes cannot hold");
    for length in 0..whole.len() {
        assert!(nifti::decode_image(&whole[..length], MAX_VOXELS).is_err(), "{length} bytes");
        let packed = gzip(&whole[..length]);
        assert!(nifti::decode_image(&packed, MAX_VOXELS).is_err(), "{length} bytes, packed");
    }
    let packed = gzip(&whole);
    for length in 0..packed.len() {
        assert!(nifti::decode_image(&packed[..length], MAX_VOXELS).is_err(), "{length} packed bytes");
    }
    refused(&gzip(&whole[..400]), "the header declares 96 bytes of voxels, the file has 48");
}

#[test]
fn a_wrong_checksum_is_told() {
    let mut packed = gzip(&plain());
    let at = packed.len() - 8; // CRC-32, then the length
    packed[at] ^= 1;
    let fault = nifti::decode_image(&packed, MAX_VOXELS).expect_err("checksum");
    assert!(matches!(fault, Fault::Gzip(_)), "{fault}");
}

#[test]
fn what_is_not_a_single_nifti_file_is_told_by_name() {
    refused(
        &patched(&[(344, b"ni1\0")]),
        "half of a header/image pair, which is not supported; convert it to a single .nii or .nii.gz",
    );
    // The size of a NIfTI-2 header before the fields of a NIfTI-1 header, in either byte order.
    for size in [540_i32.to_le_bytes(), 540_i32.to_be_bytes()] {
        let mut claimed = patched(&[(0, &size)]);
        claimed.resize(600, 0);
        refused(&claimed, "not a NIfTI file (header size 540, magic `\\x00\\x00\\x00\\x00`)");
    }
    refused(&patched(&[(0, &540_i32.to_le_bytes())]), "the file has 448 bytes, a NIfTI header has 540");
    refused(&patched(&[(344, b"n+2\0")]), "not a NIfTI file (header size 348, magic `n+2\\x00`)");
    refused(&patched(&[(0, &1_i32.to_le_bytes())]), "not a NIfTI file (header size 1, magic `n+1\\x00`)");
    refused(&[b'x'; 500], "not a NIfTI file (header size 2021161080, magic `xxxx`)");
    refused(&patched(&[(70, &128_i16.to_le_bytes())]), "voxel type rgb24 (datatype 128) is not supported");
    refused(
        &patched(&[(70, &1_i16.to_le_bytes())]),
        "voxel type of an unknown code (datatype 1) is not supported",
    );
}

#[test]
fn an_affine_that_places_nothing_is_refused() {
    refused(&patched(&[(280, &f32::NAN.to_le_bytes())]), "the sform affine is not finite");
    refused(
        &patched(&[(280, &[0; 48])]),
        "the sform affine has voxels of 0×0×0 mm (z×y×x), expected 1e-7 to 1000 mm",
    );
    refused(
        &patched(&[(254, &[0, 0]), (252, &[1, 0]), (256, &2_f32.to_le_bytes())]),
        "the qform affine has a quaternion longer than 1",
    );
    refused(
        &patched(&[(254, &[0, 0]), (252, &[1, 0]), (256, &f32::NAN.to_le_bytes())]),
        "the qform affine has a quaternion longer than 1",
    );
    refused(
        &patched(&[(254, &[0, 0]), (252, &[0, 0]), (80, &f32::INFINITY.to_le_bytes())]),
        "the pixdim affine is not finite",
    );
}

#[test]
fn voxels_that_no_body_has_are_refused() {
    let refused_size = |changes: &[(usize, &[u8])], said: &str| {
        let message = format!("{said} mm (z×y×x), expected 1e-7 to 1000 mm");
        refused(&patched(changes), &message);
    };
    // A part of the oblique step along z of the sform; the qform and pixdim, whose affine is made of pixdim.
    for (mm, said) in [(1e30_f32, "1e30"), (-1e30, "1e30")] {
        refused_size(&[(320, &mm.to_le_bytes())], &format!("the sform affine has voxels of {said}×1.1×0.9"));
    }
    for (codes, name) in [([0, 1], "qform"), ([0, 0], "pixdim")] {
        let [sform, qform] = codes.map(|code: i16| code.to_le_bytes());
        for (mm, said) in [(1e30_f32, "1e30"), (1e-9, "1e-9")] {
            let changes: [(usize, &[u8]); 3] = [(254, &sform), (252, &qform), (88, &mm.to_le_bytes())];
            refused_size(&changes, &format!("the {name} affine has voxels of {said}×1.1×0.9"));
        }
    }
    let far = (292, 1e30_f32.to_le_bytes());
    refused(
        &patched(&[(far.0, &far.1)]),
        "the sform affine places the first voxel at 1e30, 30.25, 7.75 mm (x, y, z), expected at most 1e6 mm off",
    );
}

#[test]
fn a_slope_with_an_intercept_that_is_no_number_is_refused() {
    let slope = 2_f32.to_le_bytes();
    refused(
        &patched(&[(112, &slope), (116, &f32::NAN.to_le_bytes())]),
        "scl_slope is 2 but scl_inter is NaN",
    );
}

#[test]
fn nan_voxels_are_passed_on() {
    let image =
        nifti::decode_image(&patched(&[(352, &f32::NAN.to_le_bytes())]), MAX_VOXELS).expect("readable");
    assert!(image.as_slice()[0].is_nan());
}
