//! Tests of the crate's public face. Expected values come from nibabel, SciPy, scikit-image and NumPy; see
//! `reference/generate.py`.

mod case_checks;
mod components;
mod crop;
mod data_set;
mod dicom_series;
mod formats;
mod hostile;
mod nifti_crate;
mod nifti_files;
mod noise;
mod normalize;
mod npy;
mod npz;
mod open;
mod orient;
mod reference;
mod resample;
mod transform;
