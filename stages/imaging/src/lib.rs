//! Medical volumes: reading, writing, checking and moving between voxel grids. Knows no pipeline and no YAML.
//!
//! # Axis order
//!
//! Arrays, shapes and spacings are `z, y, x` in C order, x fastest; channels come first: images are
//! `[c, z, y, x]` of `f32`, label maps `[z, y, x]` of `u8`. This is NIfTI's own memory order (x fastest), so
//! reading never transposes. Affines are the one exception: as in NIfTI, nibabel and ITK-SNAP they map the voxel
//! *index* `(x, y, z)` to millimetres in RAS space (x to the patient's right, y anterior, z superior), and
//! orientation codes such as `RAS` name the index axes in the order x, y, z.
//!
//! # A case, from files to a network and back
//!
//! ```no_run
//! use pipe_imaging::{crop, nifti, normalize, transform::Transform};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (image_path, label_path) = (std::path::Path::new("a"), std::path::Path::new("b"));
//! let image = nifti::read_image(image_path)?;
//! let label = nifti::read_label(label_path)?;
//!
//! let upright = Transform::new(image.geometry()).canonical();
//! let window = crop::nonzero_window(&upright.apply_image(&image)?).expect("image is not all zero");
//! let transform = upright.crop(window)?.resample_to_spacing([1.0, 1.0, 1.0])?;
//!
//! let mut network_input = transform.apply_image(&image)?;
//! normalize::zscore(&mut network_input, normalize::Region::All)?;
//! let network_target = transform.apply_label(&label)?;
//!
//! let in_source_space = transform.invert_label(&network_target)?;
//! nifti::write_label("prediction.nii.gz".as_ref(), &in_source_space)?;
//! # Ok(()) }
//! ```

pub mod affine;
mod bounded;
pub mod check;
pub mod components;
pub mod crop;
pub mod dicom;
pub mod digest;
mod file_error;
pub mod itk;
pub mod nifti;
pub mod normalize;
pub mod npy;
pub mod npz;
pub mod open;
pub mod orient;
pub mod raster;
pub mod resample;
pub mod similarity;
pub mod stored;
pub mod transform;
pub mod volume;

pub use affine::{Affine, Defect};
pub use file_error::FileError;
pub use volume::{Geometry, Image, LabelMap, Shape, Volume};
