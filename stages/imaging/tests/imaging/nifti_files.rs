//! Files that nibabel wrote are read as nibabel reads them; files written here come back unchanged.

use std::error::Error as _;
use std::io::Write;
use std::path::Path;

use pipe_imaging::nifti::{self, AffineSource, Fault};
use pipe_imaging::{Affine, Geometry, Image, LabelMap};

use crate::reference::{Noise, REFERENCE, directory, label, written_image, written_label};

#[test]
fn every_quirk_is_read_as_nibabel_reads_it() {
    for expected in &REFERENCE.nifti {
        let path = directory().join(&expected.file);
        let image = nifti::read_image(&path).expect(&expected.file);
        let axis = |k: usize| expected.shape_xyz.get(k).copied().unwrap_or(1);
        assert_eq!(image.shape().0, [axis(2), axis(1), axis(0)], "{}", expected.file);
        assert_eq!(
            image.channels(),
            expected.shape_xyz.iter().skip(3).product::<usize>(),
            "{}",
            expected.file
        );
        // The sform is copied; a quaternion goes through a dozen roundings in another order.
        let difference = image.geometry().affine.max_difference(&expected.affine);
        assert!(difference < 1e-12, "{}: affine differs by {difference}", expected.file);
        assert_eq!(image.geometry().orientation().to_string(), expected.codes, "{}", expected.file);
        assert_eq!(image.as_slice(), expected.values, "{}", expected.file);
        let header = nifti::read_header(&path).expect(&expected.file);
        assert_eq!(header.datatype.name(), expected.dtype, "{}", expected.file);
        assert_eq!(header.geometry, *image.geometry());
    }
}

#[test]
fn a_header_says_where_its_affine_comes_from() {
    let source = |name: &str| nifti::read_header(&directory().join(name)).expect(name).affine_source;
    assert_eq!(source("int16_sform_sheared.nii.gz"), AffineSource::Sform);
    assert_eq!(source("int16_qform_left_handed.nii.gz"), AffineSource::Qform);
    assert_eq!(source("int16_no_form.nii.gz"), AffineSource::Pixdim);
}

#[test]
fn a_float_label_of_whole_numbers_is_a_label() {
    let path = directory().join("label_float32.nii.gz");
    let values = nifti::read_image(&path).expect("as image");
    let labels = nifti::read_label(&path).expect("as label");
    assert!(labels.as_slice().iter().zip(values.as_slice()).all(|(&l, &v)| f32::from(l) == v));
    assert!(labels.histogram()[2] > 0);
}

#[test]
fn a_label_with_fractions_is_refused_with_count_value_and_place() {
    let geometry = Geometry::with_spacing([2, 3, 4], [1.0; 3]);
    let mut voxels = vec![1.0; 24];
    voxels[23] = 0.5;
    voxels[17] = -1.0;
    voxels[18] = 256.0;
    voxels[19] = f32::NAN;
    let bytes = written_image(&Image::from_vec(voxels, 1, geometry).expect("24"));
    let fault = nifti::decode_label(&bytes, nifti::MAX_VOXELS).expect_err("not labels");
    assert_eq!(
        fault.to_string(),
        "4 label values are not whole numbers from 0 to 255, the first is -1 at z, y, x = [1, 1, 1]"
    );
}

#[test]
fn a_label_with_channels_is_refused() {
    let fault = nifti::read_label(&directory().join("int32_channels.nii.gz")).expect_err("three channels");
    assert_eq!(fault.source().expect("cause").to_string(), "label has 3 channels, expected 1");
}

/// Rotated, left-handed, anisotropic, in values that f32 holds exactly.
fn awkward_affine() -> Affine {
    let rows =
        [[0.0, -1.25, 0.0, 10.5], [0.75, 0.0, 0.0, -3.25], [0.0, 0.0, 3.0, 100.0], [0.0, 0.0, 0.0, 1.0]];
    Affine(rows.map(|row: [f64; 4]| row.map(|v| f64::from(v as f32))))
}

#[test]
fn what_is_written_comes_back_exactly() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let geometry = Geometry::new([3, 4, 5], awkward_affine());
    let mut noise = Noise(1);
    let image = Image::from_vec((0..120).map(|_| noise.signed() * 1e4).collect(), 2, geometry).expect("120");
    let labels = LabelMap::from_vec((0..60).map(|_| noise.next() as u8).collect(), geometry).expect("60");
    for name in ["a.nii", "a.nii.gz", "with.dots.1.2.nii", "with.dots.nii.gz", "über.nii.gz"] {
        let path = directory.path().join(name);
        nifti::write_image(&path, &image).expect(name);
        assert_eq!(nifti::read_image(&path).expect(name), image, "{name}");
        nifti::write_label(&path, &labels).expect(name);
        assert_eq!(nifti::read_label(&path).expect(name), labels, "{name}");
    }
    let written = std::fs::read_dir(directory.path()).expect("directory").count();
    assert_eq!(written, 5, "every file has the name it was given");
}

#[test]
fn the_qform_written_beside_the_sform_says_the_same() {
    let mut noise = Noise(7);
    for _ in 0..200 {
        // A random rotation by Gram–Schmidt, random voxel sizes, either hand.
        let mut columns = [[0.0_f64; 3]; 3];
        for k in 0..3 {
            let mut v = [0; 3].map(|_| f64::from(noise.signed()));
            for earlier in &columns[..k] {
                let dot: f64 = v.iter().zip(earlier).map(|(a, b)| a * b).sum();
                v.iter_mut().zip(earlier).for_each(|(a, b)| *a -= dot * b);
            }
            let length = v.iter().map(|a| a * a).sum::<f64>().sqrt();
            columns[k] = v.map(|a| a / length);
        }
        for column in &mut columns {
            let size = 0.2 + 4.0 * f64::from(noise.signed()).abs();
            *column = column.map(|v| v * size);
        }
        let affine = Affine::from_columns(columns, [12.0, -7.0, 3.5]);
        let volume = LabelMap::from_vec(vec![0; 8], Geometry::new([2, 2, 2], affine)).expect("8");
        let mut bytes = written_label(&volume);
        bytes[254..256].copy_from_slice(&[0, 0]); // drop the sform
        let header = nifti::decode_header(&bytes).expect("qform alone");
        assert_eq!(header.affine_source, AffineSource::Qform);
        let difference = header.geometry.affine.max_difference(&affine);
        assert!(difference < 2e-5, "qform differs by {difference}"); // f32 quaternion, voxels up to 4 mm
    }
}

#[test]
fn a_sheared_affine_is_written_without_a_qform() {
    let mut affine = awkward_affine();
    affine.0[0][2] = 0.5;
    let volume = LabelMap::from_vec(vec![0; 8], Geometry::new([2, 2, 2], affine)).expect("8");
    let bytes = written_label(&volume);
    assert_eq!(bytes[252..256], [0, 0, 2, 0]);
    assert_eq!(nifti::decode_label(&bytes, 8).expect("sform").geometry().affine, affine);
}

#[test]
fn the_same_volume_gives_the_same_bytes_without_time_or_name() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let volume = label([4, 5, 6], (0..120).map(|v| v as u8 % 3).collect());
    let (one, two) = (directory.path().join("one.nii.gz"), directory.path().join("two.nii.gz"));
    nifti::write_label(&one, &volume).expect("one");
    nifti::write_label(&two, &volume).expect("two");
    let bytes = std::fs::read(&one).expect("one");
    assert_eq!(bytes, std::fs::read(&two).expect("two"));
    // RFC 1952: magic, deflate, no flags (so no name), time 0, unknown operating system.
    assert_eq!(bytes[..4], [0x1f, 0x8b, 8, 0]);
    assert_eq!(bytes[4..8], [0; 4]);
    assert_eq!(bytes[9], 255);
}

#[test]
fn a_volume_that_nifti_cannot_declare_is_refused_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("volume.nii");
    let volume = label([1, 1, 32768], vec![0; 32768]);
    let error = nifti::write_label(&path, &volume).expect_err("axis too long");
    assert!(matches!(error.fault(), Fault::AxisTooLong(32768)), "{error}");
    let flat = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0; 4], [0.0, 0.0, 0.0, 1.0]]);
    let volume = LabelMap::from_vec(vec![0; 8], Geometry::new([2, 2, 2], flat)).expect("8");
    let error = nifti::write_label(&path, &volume).expect_err("flat");
    let expected = "the volume's affine has voxels of 0×1×1 mm (z×y×x), expected 1e-7 to 1000 mm";
    assert_eq!(error.fault().to_string(), expected);
    let volume = label([2, 2, 2], vec![0; 8]);
    let occupied = directory.path().join("folder.nii.gz");
    std::fs::create_dir(&occupied).expect("a folder");
    nifti::write_label(&occupied, &volume).expect_err("a folder has that name");
    let error =
        nifti::write_label(&directory.path().join("missing/a.nii"), &volume).expect_err("no such folder");
    assert!(error.source().expect("cause").to_string().contains("No such file"), "{error}");
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("directory").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn thin_volumes_keep_their_order() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for shape in [[1, 1, 5], [1, 5, 1], [5, 1, 1], [1, 2, 3], [2, 1, 3], [2, 3, 1], [1, 1, 1]] {
        let voxels: usize = shape.iter().product();
        let geometry = Geometry::with_spacing(shape, [3.0, 2.0, 1.0]);
        let label = LabelMap::from_vec((0..voxels).map(|v| v as u8).collect(), geometry).expect("fits");
        let values = (0..2 * voxels).map(|v| v as f32).collect();
        let image = Image::from_vec(values, 2, geometry).expect("fits");
        let path = directory.path().join("thin.nii.gz");
        nifti::write_label(&path, &label).expect("written");
        assert_eq!(nifti::read_label(&path).expect("read"), label);
        nifti::write_image(&path, &image).expect("written");
        assert_eq!(nifti::read_image(&path).expect("read"), image);
    }
}

#[test]
fn the_error_names_action_path_and_cause() {
    let error = nifti::read_image(Path::new("missing/case.nii.gz")).expect_err("missing");
    assert_eq!(error.to_string(), "cannot read image `missing/case.nii.gz`");
    assert!(error.source().expect("cause").to_string().contains("No such file"));
    let error = nifti::read_label(&directory()).expect_err("a directory");
    assert_eq!(error.source().expect("cause").to_string(), "not a regular file");
}

#[test]
fn a_gzip_file_of_several_members_is_read_whole() {
    let plain = std::fs::read(directory().join("float32_plain.nii")).expect("reference");
    let mut members = Vec::new();
    for part in [&plain[..100], &plain[100..350], &[], &plain[350..400], &plain[400..]] {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        member.write_all(part).expect("in memory");
        members.extend(member.finish().expect("in memory"));
    }
    let whole = nifti::decode_image(&plain, 1000).expect("plain");
    assert_eq!(nifti::decode_image(&members, 1000).expect("members"), whole);
    members.extend([0; 512]); // padding of tapes and object stores
    assert_eq!(nifti::decode_image(&members, 1000).expect("padded members"), whole);
    members.extend(b"junk");
    assert_eq!(
        nifti::decode_image(&members, 1000).expect("what follows zero padding is not looked at"),
        whole
    );
}
