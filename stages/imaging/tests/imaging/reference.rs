//! The reference values, typed.

use std::path::PathBuf;
use std::sync::LazyLock;

use pipe_imaging::{Affine, Geometry, Image, LabelMap, nifti};
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Reference {
    pub(crate) nifti: Vec<NiftiFile>,
    pub(crate) orientation: Vec<Orientation>,
    pub(crate) resample: Vec<Resample>,
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
    pub(crate) label: Vec<u8>,
    pub(crate) nearest: Vec<u8>,
    pub(crate) scipy_nearest: Vec<u8>,
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

/// Numbers that look random and are the same everywhere (splitmix64).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `end` − 1.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// −1 to 1.
    pub(crate) fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
