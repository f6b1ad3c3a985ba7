//! `.npy` round trips on disk; the format itself is tested beside the parser.

use std::error::Error as _;

use pipe_imaging::{Geometry, Image, npy};

use crate::reference::{Noise, label};

#[test]
fn volumes_come_back_exactly_nan_included() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let geometry = Geometry::with_spacing([3, 4, 5], [1.0; 3]);
    let mut noise = Noise(5);
    let mut voxels: Vec<f32> = (0..120).map(|_| noise.signed()).collect();
    voxels[7] = f32::NAN;
    let image = Image::from_vec(voxels, 2, geometry).expect("120");
    let path = directory.path().join("image.npy");
    npy::write_image(&path, &image).expect("write");
    let back = npy::read_image(&path, geometry).expect("read");
    let bits = |i: &Image| i.as_slice().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&back), bits(&image));
    assert_eq!(npy::read_header(&path).expect("header").shape, [2, 3, 4, 5]);

    let labels = label([3, 4, 5], (0..60).collect());
    let path = directory.path().join("label.npy");
    npy::write_label(&path, &labels).expect("write");
    assert_eq!(npy::read_label(&path, geometry).expect("read"), labels);
}

#[test]
fn a_file_of_another_shape_or_type_is_an_error_that_names_both() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("label.npy");
    npy::write_label(&path, &label([3, 4, 5], vec![0; 60])).expect("write");
    let cause = |e: npy::Error| e.source().expect("cause").to_string();
    let other = Geometry::with_spacing([5, 4, 3], [1.0; 3]);
    assert_eq!(
        cause(npy::read_label(&path, other).expect_err("shape")),
        "the array is [3, 4, 5], expected [5, 4, 3]"
    );
    assert_eq!(cause(npy::read_image(&path, other).expect_err("type")), "elements are `|u1`, expected `<f4`");
    npy::write(&path, &[3, 4, 5], &[0.0_f32; 60]).expect("write");
    assert_eq!(
        cause(npy::read_image(&path, other).expect_err("rank")),
        "the array is [3, 4, 5], expected [channels, [5, 4, 3]]"
    );
    let length = std::fs::metadata(&path).expect("written").len();
    std::fs::OpenOptions::new().write(true).open(&path).expect("open").set_len(length - 1).expect("cut");
    assert_eq!(
        cause(npy::read::<f32>(&path).expect_err("cut")),
        "the header declares [3, 4, 5], which takes 240 bytes, but 239 bytes follow"
    );
}

#[test]
fn mutated_files_never_panic() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("label.npy");
    npy::write_label(&path, &label([3, 4, 5], vec![0; 60])).expect("write");
    let whole = std::fs::read(&path).expect("read");
    let mut noise = Noise(11);
    for _ in 0..500 {
        let mut bytes = whole.clone();
        for _ in 0..=noise.below(3) {
            let at = noise.below(bytes.len().min(128));
            bytes[at] =
                if noise.below(2) == 0 { b"0123456789(),{}':"[noise.below(17)] } else { noise.next() as u8 };
        }
        bytes.truncate(noise.below(bytes.len() * 4) + 1);
        std::fs::write(&path, &bytes).expect("write");
        let _ = npy::read::<u8>(&path);
        let _ = npy::read::<f32>(&path);
    }
}
