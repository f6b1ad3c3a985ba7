//! NIfTI files, `.nii` and `.nii.gz`: NIfTI-1 and NIfTI-2 in, NIfTI-1 out. Owns what a file may claim before memory is
//! given to it.
//!
//! The crate `nifti` parses NIfTI-1 headers, makes numbers of the bytes and writes the files. What is here stands in
//! front of it: the claims of a header are checked before it sees them, and it never opens a file that it did not make.
//! `docs/nifti-crate.md` has the inputs that need this; `raw` has NIfTI-2, which it does not know.
//!
//! Affine, scaling and header repairs follow nibabel, so both read the same numbers.
//!
//! Not read: header/image pairs (`.hdr`/`.img`), complex, RGB and 128-bit voxels. Each is told by name.

mod affine;
mod decode;
mod fault;
mod header;
mod raw;
mod source;
mod write;

use std::io::{BufRead, BufReader};
use std::path::Path;

pub use self::fault::{Error, Fault};
pub use self::header::{AffineSource, Header, SpaceUnit};
pub use self::raw::Version;
pub use self::write::{write_image, write_label};
pub use crate::stored::{Datatype, LABEL_TOLERANCE, Scaling};

use self::source::Source;
use crate::volume::{Image, LabelMap};

/// The largest volume that is read unless told otherwise, in voxels × channels: 2²⁹, which is 2 GiB as `f32`.
///
/// A CT of 512×512×2048 just fits. A file cannot make the reader allocate more than this, whatever it claims.
pub const MAX_VOXELS: usize = 1 << 29;

/// Reads and checks the header alone: shape, affine, voxel type. Touches the first kilobytes of the file.
pub fn read_header(path: &Path) -> Result<Header, Error> {
    let attempt = || open(path)?.header(MAX_VOXELS);
    attempt().map_err(|fault| Error::new("read the header of", path, fault))
}

/// Reads an image as `[c, z, y, x]`: values scaled by `scl_slope` and `scl_inter` in `f64`, then rounded to `f32` once.
///
/// A fourth (or fifth) dimension becomes the channels; two-dimensional files have one slice. NaN and infinity are
/// passed on as they are, for [`crate::check`] to report.
pub fn read_image(path: &Path) -> Result<Image, Error> {
    read_image_up_to(path, MAX_VOXELS)
}

/// Reads an image of at most `max_voxels` voxels × channels. See [`read_image`].
pub fn read_image_up_to(path: &Path, max_voxels: usize) -> Result<Image, Error> {
    let attempt = || decode::image(open(path)?, max_voxels);
    attempt().map_err(|fault| Error::new("read image", path, fault))
}

/// Reads a label map. Any voxel type is accepted as long as every value, after scaling, is a whole number from
/// 0 to 255 (within [`LABEL_TOLERANCE`]); anything else is an error that counts the voxels and names the first.
pub fn read_label(path: &Path) -> Result<LabelMap, Error> {
    read_label_up_to(path, MAX_VOXELS)
}

/// Reads a label map of at most `max_voxels` voxels. See [`read_label`].
pub fn read_label_up_to(path: &Path, max_voxels: usize) -> Result<LabelMap, Error> {
    let attempt = || decode::label(open(path)?, max_voxels);
    attempt().map_err(|fault| Error::new("read label", path, fault))
}

/// Reads an image from bytes in memory, compressed or not. See [`read_image`].
pub fn decode_image(bytes: &[u8], max_voxels: usize) -> Result<Image, Fault> {
    decode::image(Source::new(bytes, bytes.len() as u64)?, max_voxels)
}

/// Reads a label map from bytes in memory, compressed or not. See [`read_label`].
pub fn decode_label(bytes: &[u8], max_voxels: usize) -> Result<LabelMap, Fault> {
    decode::label(Source::new(bytes, bytes.len() as u64)?, max_voxels)
}

/// Reads a header from bytes in memory, compressed or not. See [`read_header`].
pub fn decode_header(bytes: &[u8]) -> Result<Header, Fault> {
    Source::new(bytes, bytes.len() as u64)?.header(MAX_VOXELS)
}

fn open(path: &Path) -> Result<Source<impl BufRead>, Fault> {
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile);
    }
    Source::new(BufReader::with_capacity(1 << 16, file), metadata.len())
}
