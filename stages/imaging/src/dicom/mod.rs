//! DICOM series to volumes: which files belong together, in which order, and where they lie.
//!
//! Slices are grouped by SeriesInstanceUID (and, where a series mixes them, by size, spacing and orientation), sorted
//! by their position along the slice normal, never by file name, and must lie at one distance on one line. What
//! breaks that is an error with file names; what is merely odd is a [`Note`]. The grid is that of ITK: index x along a
//! row, y along a column, z along the normal, turned from LPS to the RAS of NIfTI.
//!
//! Read: implicit and explicit little-endian, explicit big-endian, run-length, JPEG baseline and lossless; 8, 16 and
//! 32 bits. Not read: several frames in one file, colour, JPEG-LS, JPEG 2000, deflated files. Each is told by name.
//!
//! The parser is ours because those on crates.io allocate what a length field says before looking at the file.

mod attribute;
mod codec;
mod element;
mod fault;
mod slice;
mod stack;
mod syntax;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use self::element::Tag;
pub use self::fault::{Error, Fault};
pub use self::slice::{Facts, Slice};
pub use self::stack::Stack;
pub use self::syntax::TransferSyntax;

/// The largest series that is read, in voxels; see [`crate::nifti::MAX_VOXELS`].
pub const MAX_VOXELS: usize = crate::nifti::MAX_VOXELS;

/// Something odd about a series that can be used nevertheless.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// The same slice twice, pixel for pixel; one was dropped.
    Duplicate { kept: String, dropped: String },
    /// One SeriesInstanceUID, several sizes, spacings or orientations (a localizer among slices, say).
    Mixed { volumes: usize },
    /// Distances differ a little; their mean is taken.
    NearlyEven { least_mm: f64, most_mm: f64 },
    /// A single slice without thickness: 1 mm is taken.
    NoThickness,
    /// No place in space: the grid begins at the origin, as that of a picture does.
    NoPosition,
    /// No pixel spacing: 1 mm is taken.
    NoSpacing,
    /// `MONOCHROME1`: viewers show high values dark. Values are as stored.
    Inverted,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate { kept, dropped } => {
                write!(f, "slice `{dropped}` is the same as `{kept}`, pixel for pixel, and was dropped")
            }
            Self::Mixed { volumes } => {
                write!(
                    f,
                    "one SeriesInstanceUID holds {volumes} volumes of different size, spacing or orientation"
                )
            }
            Self::NearlyEven { least_mm, most_mm } => {
                write!(f, "slices are {least_mm:.3} to {most_mm:.3} mm apart; the mean was taken")
            }
            Self::NoThickness => write!(f, "a single slice without thickness, taken as 1 mm"),
            Self::NoPosition => {
                write!(f, "the image has no place in the patient; its orientation is unknown")
            }
            Self::NoSpacing => write!(f, "the image has no pixel spacing, taken as 1 mm"),
            Self::Inverted => {
                write!(f, "MONOCHROME1: high values are meant to be dark; they are left as stored")
            }
        }
    }
}

/// Slices of one volume, in no order yet.
#[derive(Debug, Clone)]
pub struct Series {
    pub facts: Facts,
    /// In the order of the files that were given.
    pub slices: Vec<Slice>,
    /// How many volumes share the SeriesInstanceUID; 1 for a sound series.
    pub siblings: usize,
}

/// What a set of files holds.
#[derive(Debug)]
pub struct Scan {
    /// Sorted by SeriesInstanceUID; a mixed series gives one entry a volume.
    pub series: Vec<Series>,
    /// Files that are no image, with the reason.
    pub skipped: Vec<Error>,
}

/// Reads the headers of `files` and sorts them into series. Files that are no DICOM image are skipped with their reason.
pub fn scan(files: impl IntoIterator<Item = PathBuf>) -> Scan {
    let mut groups: BTreeMap<(String, Sameness), Vec<Slice>> = BTreeMap::new();
    let mut skipped = Vec::new();
    for path in files {
        match Slice::read(&path) {
            Ok(slice) => {
                let key = (slice.facts.series_uid.clone(), Sameness::of(&slice));
                groups.entry(key).or_default().push(slice);
            }
            Err(error) => skipped.push(error),
        }
    }
    let mut siblings: BTreeMap<String, usize> = BTreeMap::new();
    for (uid, _) in groups.keys() {
        *siblings.entry(uid.clone()).or_default() += 1;
    }
    let series = groups.into_iter().filter_map(|((uid, _), slices)| {
        let facts = slices.first()?.facts.clone();
        Some(Series { facts, slices, siblings: siblings[&uid] })
    });
    Scan { series: series.collect(), skipped }
}

/// The Modality of a DICOM file, such as `RTSTRUCT`, also where it holds no image; empty where it does not say.
pub fn modality(path: &Path) -> Result<String, Error> {
    slice::modality(path).map_err(|fault| Error::new("read the header of", path, fault))
}

/// The files directly inside `folder`, sorted by name. Hidden ones are left out.
pub fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The only series in a folder. Files that are no image are passed over; a damaged one or a second volume is an error.
pub fn series_in(folder: &Path) -> Result<Series, Error> {
    let files = files_in(folder).map_err(|error| Error::new("read the series in", folder, error.into()))?;
    only_series(files, folder)
}

/// The only series among files that lie in one folder. See [`series_in`].
pub fn series_among(files: Vec<PathBuf>) -> Result<Series, Error> {
    let folder = files.first().and_then(|file| file.parent()).map_or_else(PathBuf::new, Path::to_owned);
    only_series(files, &folder)
}

fn only_series(files: Vec<PathBuf>, folder: &Path) -> Result<Series, Error> {
    let count = files.len();
    let Scan { mut series, mut skipped } = scan(files);
    // A slice that is cut off must not leave the series without notice: at its end no gap would tell.
    if let Some(damaged) = skipped.iter().position(|error| !error.is_of_no_image()) {
        return Err(skipped.swap_remove(damaged));
    }
    let fault = match series.len() {
        1 => return Ok(series.remove(0)),
        0 => Fault::NoSeries { files: count, first: skipped.first().map(Error::told) },
        _ => Fault::SeveralSeries { series: series.iter().map(Series::to_string).collect() },
    };
    Err(Error::new("read the series in", folder, fault))
}

/// A file as a series of one slice.
pub fn series_of(file: &Path) -> Result<Series, Error> {
    let slice = Slice::read(file)?;
    Ok(Series { facts: slice.facts.clone(), slices: vec![slice], siblings: 1 })
}

impl Series {
    /// Sorts the slices and checks that they are one volume; `max_voxels` bounds what will be read.
    pub fn stack(&self, max_voxels: usize) -> Result<Stack, Error> {
        let folder = self.slices.first().and_then(|slice| slice.path.parent()).unwrap_or(Path::new(""));
        stack::stack(self, max_voxels).map_err(|fault| Error::new("stack the slices in", folder, fault))
    }
}

/// Description, size and number of slices.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            if self.facts.description.is_empty() { &self.facts.series_uid } else { &self.facts.description };
        let (rows, columns) = self.slices.first().map_or((0, 0), |slice| (slice.rows, slice.columns));
        write!(f, "`{name}` of {}×{rows}×{columns}", self.slices.len())
    }
}

/// What all slices of a volume share, rounded so that the digits of different writers agree.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sameness {
    rows: u16,
    columns: u16,
    orientation_e3: Option<[i64; 6]>,
    spacing_e4: Option<[i64; 2]>,
}

impl Sameness {
    fn of(slice: &Slice) -> Self {
        Self {
            rows: slice.rows,
            columns: slice.columns,
            orientation_e3: slice.orientation.map(|v| v.map(|v| (v * 1e3).round() as i64)),
            spacing_e4: slice.spacing_mm.map(|v| v.map(|v| (v * 1e4).round() as i64)),
        }
    }
}
