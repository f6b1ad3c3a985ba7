//! Everything that can be wrong with a NIfTI file.

use std::io;

use thiserror::Error;

use crate::affine::Defect;
use crate::file_error::FileError;
use crate::stored::ValueFault;

/// A NIfTI file that could not be read or written; [`Fault`] is the cause.
pub type Error = FileError<Fault>;

/// What is wrong with a NIfTI file or with a volume to be written as one.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system, or the gzip stream: truncated, checksum mismatch.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A directory, socket or device.
    #[error("not a regular file")]
    NotAFile,
    /// A gzip member that does not inflate to what its trailer says.
    #[error("damaged gzip stream: {0}")]
    Gzip(io::Error),
    /// The (uncompressed) file is shorter than a header.
    #[error("the file has {found} bytes, a NIfTI header has {size}")]
    NoHeader { found: usize, size: usize },
    /// No NIfTI header at the start.
    #[error("not a NIfTI file (header size {sizeof_hdr}, magic `{}`)", magic.escape_ascii())]
    NotNifti { sizeof_hdr: i32, magic: [u8; 4] },
    /// A `.hdr` of a `.hdr`/`.img` pair.
    #[error("half of a header/image pair, which is not supported; convert it to a single .nii or .nii.gz")]
    HeaderImagePair,
    /// `dim[0]` is not 1 to 7, or a used dimension is zero or negative.
    #[error("dim {dim:?} is not 1 to 7 positive dimensions")]
    Dimensions { dim: [i64; 8] },
    /// More than one dimension beyond x, y, z holds more than one element.
    #[error("dim {dim:?} has more than four dimensions in use")]
    TooManyDimensions { dim: [i64; 8] },
    /// A label map with channels or time points.
    #[error("label has {channels} channels, expected 1")]
    LabelChannels { channels: usize },
    /// A voxel type that is not read.
    #[error("voxel type {name} (datatype {code}) is not supported")]
    Datatype { code: i16, name: &'static str },
    /// bitpix contradicts datatype.
    #[error("bitpix is {bitpix} but voxels of type {datatype} have {expected} bits")]
    BitsPerVoxel { bitpix: i16, datatype: &'static str, expected: usize },
    /// vox_offset does not point behind the header, or not at a byte.
    #[error("vox_offset is {offset}, expected a whole number of at least {least}")]
    DataOffset { offset: f64, least: u64 },
    /// A finite slope with an intercept that is not.
    #[error("scl_slope is {slope} but scl_inter is {intercept}")]
    Scaling { slope: f64, intercept: f64 },
    /// The affine cannot place voxels.
    #[error("the {source_name} affine {defect}")]
    Affine { source_name: &'static str, defect: Defect },
    /// A quaternion that is no rotation.
    #[error("the qform affine has a quaternion longer than 1")]
    Quaternion,
    /// More voxels than the reader may allocate.
    #[error("the header declares {voxels} voxels, the limit is {limit}")]
    TooLarge { voxels: u128, limit: usize },
    /// The header declares more than a file of this size can hold, even at gzip's best ratio.
    #[error("the header declares {declared} bytes, which a file of {stored} bytes cannot hold")]
    Implausible { declared: u64, stored: u64 },
    /// The data end early.
    #[error("the header declares {declared} bytes of voxels, the file has {found}")]
    Truncated { declared: usize, found: usize },
    /// The data go on after the last declared voxel, and not as zero padding.
    #[error("the header declares {declared} bytes of voxels, but more data follow")]
    Trailing { declared: usize },
    /// The allocator refused.
    #[error("not enough memory for {bytes} bytes of voxels")]
    Memory { bytes: usize },
    /// Values that are no labels, or no memory for them.
    #[error(transparent)]
    Value(#[from] ValueFault),
    /// The header's size is in one byte order, its rank makes sense only in the other.
    #[error("the header's size and its rank of {rank} are of different byte order")]
    ByteOrder { rank: u16 },
    /// The crate `nifti` refused what the checks let through, or could not write.
    #[error(transparent)]
    Codec(#[from] nifti::NiftiError),
    /// A file is shorter than what was written to it.
    #[error("{found} of {expected} bytes reached the disk")]
    Unwritten { expected: u64, found: u64 },
    /// A volume to be written has an axis NIfTI-1 cannot declare.
    #[error("axis length {0} does not fit a NIfTI-1 header, which ends at 32767")]
    AxisTooLong(usize),
}
