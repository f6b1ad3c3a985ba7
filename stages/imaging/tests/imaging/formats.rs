//! Expected values of files that other programs wrote; see `formats/generate.py`.

use std::path::PathBuf;
use std::sync::LazyLock;

use pipe_imaging::Affine;
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) dicom: Vec<DicomFolder>,
    pub(crate) volumes: Vec<VolumeFile>,
    pub(crate) rasters: Vec<RasterFile>,
}

#[derive(Deserialize)]
pub(crate) struct VolumeFile {
    pub(crate) file: String,
    pub(crate) shape_zyx: [usize; 3],
    pub(crate) channels: usize,
    pub(crate) dtype: String,
    pub(crate) affine: Affine,
    pub(crate) values: Vec<f32>,
}

#[derive(Deserialize)]
pub(crate) struct RasterFile {
    pub(crate) file: String,
    pub(crate) channels: usize,
    pub(crate) dtype: String,
    pub(crate) shape_yx: [usize; 2],
    pub(crate) affine: Affine,
    pub(crate) values: Vec<f32>,
    /// Indices of a palette.
    pub(crate) labels: Option<Vec<u8>>,
}

#[derive(Deserialize)]
pub(crate) struct DicomFolder {
    pub(crate) folder: String,
    pub(crate) shape_zyx: [usize; 3],
    pub(crate) affine: Affine,
    pub(crate) patient: String,
    pub(crate) dtype: String,
    pub(crate) values: Vec<f32>,
}

pub(crate) static EXPECTED: LazyLock<Expected> = LazyLock::new(|| {
    let text = std::fs::read_to_string(path("expected.json")).expect("expected.json is in the crate");
    serde_json::from_str(&text).expect("generate.py wrote these fields")
});

pub(crate) fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "imaging", "formats", name].iter().collect()
}
