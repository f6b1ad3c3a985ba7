//! Everything that can be wrong with a MetaImage or NRRD file.

use std::io;

use thiserror::Error;

use crate::affine::Defect;
use crate::file_error::FileError;
use crate::stored::ValueFault;

/// A file that could not be read; [`Fault`] is the cause.
pub type Error = FileError<Fault>;

/// What is wrong.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system, or the deflated stream: cut off, checksum mismatch.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A directory, socket or device.
    #[error("not a regular file")]
    NotAFile,
    /// The first line is not that of the format.
    #[error("not {expected}: the first line is `{found}`")]
    Format { expected: &'static str, found: String },
    /// The header does not end.
    #[error("the header has more than {limit} bytes")]
    LongHeader { limit: usize },
    /// Bytes that are no text before the voxels.
    #[error("the header is no text")]
    NotText,
    /// The file ends within the header.
    #[error("the file ends within its header, before {0}")]
    NoData(&'static str),
    /// A line that is no field.
    #[error("the header has the line `{0}`, which is no field")]
    Line(String),
    /// A field that is needed.
    #[error("the header has no `{0}`")]
    Missing(&'static str),
    /// A field that says something impossible, or something that is not read.
    #[error("`{key}` is `{text}`, expected {expected}")]
    Value { key: &'static str, text: String, expected: &'static str },
    /// Dimensions that make no volume.
    #[error("dimensions {0:?} are not one to four positive lengths")]
    Dimensions(Vec<usize>),
    /// The affine cannot place voxels.
    #[error("the affine {0}")]
    Affine(Defect),
    /// More voxels than the reader may allocate.
    #[error("the header declares {voxels} voxels, the limit is {limit}")]
    TooLarge { voxels: u128, limit: usize },
    /// The header declares more than a file of this size can hold, even deflated.
    #[error("the header declares {declared} bytes, which a file of {stored} bytes cannot hold")]
    Implausible { declared: usize, stored: u64 },
    /// The data end early.
    #[error("the header declares {declared} bytes of voxels, the file has {found}")]
    Truncated { declared: usize, found: usize },
    /// The data go on after the last declared voxel.
    #[error("the header declares {declared} bytes of voxels, but more data follow")]
    Trailing { declared: usize },
    /// The file that holds the voxels.
    #[error("its voxels in `{name}` cannot be read: {text}")]
    DataFile { name: String, text: String },
    /// The allocator refused.
    #[error("not enough memory for {bytes} bytes of voxels")]
    Memory { bytes: usize },
    /// No memory for the values.
    #[error(transparent)]
    Values(#[from] ValueFault),
}

impl Fault {
    pub(super) fn value(key: &'static str, text: &str, expected: &'static str) -> Self {
        Self::Value { key, text: text.to_owned(), expected }
    }
}
