//! The reference values, typed.

use std::path::PathBuf;
use std::sync::LazyLock;

pub(crate) use crate::noise::Noise;
use pipe_imaging::{Affine, Geometry, Image, LabelMap, nifti};
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Reference {
    pub(crate) nifti: Vec<NiftiFile>,
    pub(crate) orientation: Vec<Orientation>,
    pub(crate) resample: Vec<Resample>,
    pub(crate) anisotropic: Vec<Anisotropic>,
    pub(crate) statistics: Vec<Statistics>,
}

#[derive(Deserialize)]
pub(crate) struct NiftiFile {
    pub(crate) file: String,
    pub(crate) shape_xyz: Vec<usize>,
    pub(crate) dtype: String,
    pub(crate) affine: Affine,
    pub(crate) codes: String,
    pub(crate) values: Vec<f32>,
}

#[derive(Deserialize)]
pub(crate) struct Orientation {
    pub(crate) affine: Affine,
    pub(crate) codes: String,
    pub(crate) canonical_affine: Affine,
    pub(crate) canonical_shape_xyz: [usize; 3],
    pub(crate) canonical_values: Vec<u8>,
}

#[derive(Deserialize)]
pub(crate) struct Resample {
    pub(crate) from: [usize; 3],
    pub(crate) to: [usize; 3],
    pub(crate) image: Vec<f32>,
    pub(crate) linear: Vec<f64>,
    pub(crate) cubic: Vec<f64>,
    pub(crate) label: Vec<u8>,
    pub(crate) nearest: Vec<u8>,
    pub(crate) scipy_nearest: Vec<u8>,
}

#[derive(Deserialize)]
pub(crate) struct Anisotropic {
    pub(crate) from: [usize; 3],
    pub(crate) to: [usize; 3],
    pub(crate) from_mm: [f64; 3],
    pub(crate) to_mm: [f64; 3],
    pub(crate) image: Vec<f32>,
    pub(crate) cubic: Vec<f64>,
}

#[derive(Deserialize)]
pub(crate) struct Statistics {
    pub(crate) values: Vec<f32>,
    pub(crate) mean: f64,
    pub(crate) sd: f64,
    pub(crate) p05_p995: [f64; 2],
    pub(crate) p10_p63: [f64; 2],
    pub(crate) nonzero_mean: f64,
    pub(crate) nonzero_sd: f64,
}

pub(crate) static REFERENCE: LazyLock<Reference> = LazyLock::new(|| {
    let text =
        std::fs::read_to_string(directory().join("reference.json")).expect("reference.json is in the crate");
    serde_json::from_str(&text).expect("generate.py wrote these fields")
});

pub(crate) fn directory() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "imaging", "reference"].iter().collect()
}

/// A label map on a 1 mm grid.
pub(crate) fn label(shape: [usize; 3], voxels: Vec<u8>) -> LabelMap {
    LabelMap::from_vec(voxels, Geometry::with_spacing(shape, [1.0; 3])).expect("voxels fit the shape")
}

/// A one-channel image on a 1 mm grid.
pub(crate) fn image(shape: [usize; 3], voxels: Vec<f32>) -> Image {
    Image::from_vec(voxels, 1, Geometry::with_spacing(shape, [1.0; 3])).expect("voxels fit the shape")
}

/// The bytes of the file that an image is written to.
pub(crate) fn written_image(image: &Image) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("image.nii");
    nifti::write_image(&path, image).expect("the image can be written");
    std::fs::read(&path).expect("the image was written")
}

/// The bytes of the file that a label map is written to.
pub(crate) fn written_label(label: &LabelMap) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("label.nii");
    nifti::write_label(&path, label).expect("the label can be written");
    std::fs::read(&path).expect("the label was written")
}
