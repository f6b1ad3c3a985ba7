//! Everything that can be wrong with a DICOM file or with a series of them.

use std::io;

use thiserror::Error;

use super::element::Tag;
use crate::affine::Defect;
use crate::file_error::FileError;

/// Files that could not be read; [`Fault`] is the cause.
pub type Error = FileError<Fault>;

impl Error {
    /// Name (without folder) and cause, for a message whose path is told elsewhere.
    pub fn told(&self) -> String {
        let name = self.path().file_name().unwrap_or_default().to_string_lossy();
        format!("`{name}`: {}", self.fault())
    }

    /// Whether the machine is to blame rather than the file, so that another try may go well.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self.fault(), Fault::Io(_) | Fault::Memory { .. })
    }

    /// Whether the file is something else than an image: another format and another name, a report, a directory.
    pub(super) fn is_of_no_image(&self) -> bool {
        let named = self.path().extension().is_some_and(|extension| extension.eq_ignore_ascii_case("dcm"));
        matches!((self.fault(), named), (Fault::NotDicom, false) | (Fault::NoPixels, _))
    }
}

/// What is wrong.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A directory, socket or device.
    #[error("not a regular file")]
    NotAFile,
    /// No `DICM` behind the preamble.
    #[error("not a DICOM file: `DICM` is missing at byte 128")]
    NotDicom,
    /// A meta group without the encoding of the rest.
    #[error("the file does not say how it is encoded: TransferSyntaxUID (0002,0010) is missing")]
    NoTransferSyntax,
    /// An encoding that is not read.
    #[error("transfer syntax {uid} ({name}) is not supported; convert it, e.g. with `gdcmconv --raw`")]
    TransferSyntax { name: &'static str, uid: String },
    /// The file ends within an element.
    #[error("the file of {length} bytes ends within an element")]
    Truncated { length: u64 },
    /// An element is longer than what is left of the file.
    #[error("element {tag} declares {length} bytes, the file has {remaining} left")]
    Element { tag: Tag, length: u32, remaining: u64 },
    /// A value that cannot be that long.
    #[error("element {tag} declares {length} bytes, far more than its kind of value has")]
    LongValue { tag: Tag, length: u32 },
    /// Two bytes that are no value representation.
    #[error("element {tag} has the value representation `{}`, which does not exist", found.escape_ascii())]
    Representation { tag: Tag, found: [u8; 2] },
    /// Sequences nested without end.
    #[error("sequences are nested more than {limit} deep")]
    Nesting { limit: usize },
    /// Something else than an item in a sequence.
    #[error("element {tag} stands in a sequence where an item or its end belongs")]
    Sequence { tag: Tag },
    /// A directory, a report, a plan: no image.
    #[error("holds no pixels")]
    NoPixels,
    /// Pixels as floating point numbers.
    #[error("floating point pixels are not supported; convert the series to NIfTI")]
    FloatPixels,
    /// An attribute that is needed.
    #[error("{keyword} {tag} is missing")]
    Missing { keyword: &'static str, tag: Tag },
    /// An attribute that says something impossible.
    #[error("{keyword} {tag} is `{text}`, expected {expected}")]
    Value { keyword: &'static str, tag: Tag, text: String, expected: &'static str },
    /// Several frames in one file.
    #[error(
        "the file holds {0} frames; split it into one file a slice, e.g. with `emf2sf`, or convert it to NIfTI"
    )]
    Frames(u64),
    /// Colour.
    #[error("pixels have {samples} samples ({photometric}), expected 1 (grey)")]
    Colour { samples: u16, photometric: String },
    /// Bits that do not fit each other or are not read.
    #[error(
        "pixels of {allocated} bits with {stored} stored up to bit {high} are not supported, expected 8, 16 or 32 bits with the value in the lowest"
    )]
    Bits { allocated: u16, stored: u16, high: u16 },
    /// Single bytes in words of the other byte order.
    #[error("pixels of 8 bits in big-endian words are not supported; convert it, e.g. with `gdcmconv --raw`")]
    BigEndianBytes,
    /// Pixel data of another size than the image.
    #[error("{rows}×{columns} pixels take {expected} bytes, the file has {found}")]
    PixelLength { rows: u16, columns: u16, expected: u64, found: u64 },
    /// Compressed pixels where plain ones belong, or the other way round.
    #[error("the pixels are {found}, but the transfer syntax says {expected}")]
    Encapsulation { found: &'static str, expected: &'static str },
    /// A compressed image that cannot be decoded.
    #[error("the {codec} pixels are damaged: {text}")]
    Codec { codec: &'static str, text: String },
    /// Nothing to read in a folder.
    #[error("no DICOM image among {files} files{}", first.as_ref().map_or(String::new(), |text| format!("; the first: {text}")))]
    NoSeries { files: usize, first: Option<String> },
    /// A folder with more than one volume.
    #[error("{} series lie here, expected 1: {}", series.len(), series.join(", "))]
    SeveralSeries { series: Vec<String> },
    /// A series of two patients.
    #[error("the series holds slices of the patients `{first}` and `{second}`")]
    Patients { first: String, second: String },
    /// Slices that do not say where they lie.
    #[error(
        "`{file}` has no ImagePositionPatient and ImageOrientationPatient, so {slices} slices cannot be ordered"
    )]
    Unplaced { file: String, slices: usize },
    /// Different images at one place.
    #[error(
        "`{first}` and `{second}` lie at the same place with different pixels: several time points or echoes in one series; put each into its own folder"
    )]
    SamePlace { first: String, second: String },
    /// A hole in the stack.
    #[error(
        "{missing} slices are missing between `{before}` and `{after}`: {gap_mm:.3} mm apart, the others {spacing_mm:.3} mm"
    )]
    Gap { before: String, after: String, missing: usize, gap_mm: f64, spacing_mm: f64 },
    /// Distances without a common value.
    #[error("slices are {least_mm:.3} to {most_mm:.3} mm apart; a volume needs one distance")]
    Uneven { least_mm: f64, most_mm: f64 },
    /// The stack leans.
    #[error(
        "slices shift by {drift_mm:.2} mm within their plane from first to last (gantry tilt of {degrees:.1}°): straighten the series first, e.g. with `dcm2niix`"
    )]
    Tilt { drift_mm: f64, degrees: f64 },
    /// Slices beside the line that the others form.
    #[error("`{file}` lies {distance_mm:.2} mm beside the line through the other slices")]
    Scattered { file: String, distance_mm: f64 },
    /// Row and column direction that are no directions at right angles.
    #[error("ImageOrientationPatient {0:?} is not two unit vectors at right angles")]
    Orientation([f64; 6]),
    /// The affine cannot place voxels.
    #[error("the affine {0}")]
    Affine(Defect),
    /// More voxels than the reader may allocate.
    #[error("the series has {voxels} voxels, the limit is {limit}")]
    TooLarge { voxels: u128, limit: usize },
    /// The allocator refused.
    #[error("not enough memory for {bytes} bytes of voxels")]
    Memory { bytes: usize },
}
