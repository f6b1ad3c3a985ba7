//! One way in for every format: tells what a file is by its content first and by its name second, and reads it.

use std::fmt;
use std::io::Read;
use std::path::Path;

use thiserror::Error;

use crate::file_error::FileError;
use crate::stored::{Datatype, ValueFault, labels};
use crate::volume::{Image, LabelMap};
use crate::{check, dicom, itk, nifti, raster};

/// A format that holds one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Nifti,
    /// A file of one slice, or a folder of one series.
    Dicom,
    MetaImage,
    Nrrd,
    /// PNG, JPEG or TIFF.
    Raster,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nifti => "NIfTI",
            Self::Dicom => "DICOM",
            Self::MetaImage => "MetaImage",
            Self::Nrrd => "NRRD",
            Self::Raster => "PNG, JPEG or TIFF",
        })
    }
}

/// A volume that could not be opened; [`Fault`] is the cause.
pub type Error = FileError<Fault>;

impl Error {
    /// Whether the machine is to blame rather than the file, so that another try may go well.
    pub fn is_of_the_machine(&self) -> bool {
        match self.fault() {
            Fault::Io(_) => true,
            Fault::Values(fault) => matches!(fault, ValueFault::Memory { .. }),
            Fault::Nifti(fault) => {
                matches!(
                    fault,
                    nifti::Fault::Io(_)
                        | nifti::Fault::Memory { .. }
                        | nifti::Fault::Value(ValueFault::Memory { .. })
                )
            }
            Fault::Dicom(error) => error.is_of_the_machine(),
            Fault::Itk(fault) => {
                matches!(fault, itk::Fault::Memory { .. } | itk::Fault::Values(ValueFault::Memory { .. }))
            }
            Fault::Raster(fault) => matches!(fault, raster::Fault::Io(_)),
            Fault::Unknown { .. } | Fault::Channels { .. } => false,
        }
    }
}

/// What is wrong.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No format that is read.
    #[error("of no known format (it begins with `{}`): expected NIfTI, DICOM, MetaImage, NRRD, PNG, JPEG or TIFF", start.escape_ascii())]
    Unknown { start: Vec<u8> },
    #[error(transparent)]
    Nifti(nifti::Fault),
    #[error("{}", .0.told())]
    Dicom(dicom::Error),
    #[error(transparent)]
    Itk(itk::Fault),
    #[error(transparent)]
    Raster(raster::Fault),
    /// A label map with channels or time points.
    #[error("label has {channels} channels, expected 1")]
    Channels { channels: usize },
    /// Values that are no labels.
    #[error(transparent)]
    Values(#[from] ValueFault),
}

/// How to open.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The largest volume, in voxels × channels.
    pub max_voxels: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_voxels: nifti::MAX_VOXELS }
    }
}

/// A volume and what its file says besides.
#[derive(Debug, Clone)]
pub struct Opened<V> {
    pub volume: V,
    pub format: Format,
    /// Type of the stored values.
    pub datatype: Datatype,
    /// What is odd about the file.
    pub findings: Vec<check::Finding>,
    /// The second file that holds the voxels, where there is one: this one alone does not tell the image.
    pub data_file: Option<String>,
    /// Of DICOM only.
    pub facts: Option<dicom::Facts>,
}

/// Tells the format of a file; a folder is taken for DICOM.
pub fn format(path: &Path) -> Result<Format, Error> {
    format_of(path).map_err(|fault| Error::new("read the format of", path, fault))
}

/// Opens an image.
pub fn image(path: &Path, options: Options) -> Result<Opened<Image>, Error> {
    open(path, options).map_err(|fault| Error::new("read image", path, fault))
}

/// Opens a label map: one channel of whole numbers from 0 to 255, of whatever type.
pub fn label(path: &Path, options: Options) -> Result<Opened<LabelMap>, Error> {
    let attempt = || {
        let format = format_of(path)?;
        if format == Format::Nifti {
            // Without the way through f32.
            let header = nifti::read_header(path).map_err(|error| Fault::Nifti(error.into_fault()))?;
            let volume = nifti::read_label_up_to(path, options.max_voxels);
            let volume = volume.map_err(|error| Fault::Nifti(error.into_fault()))?;
            let findings = check::check_header(&header);
            return Ok(Opened {
                volume,
                format,
                datatype: header.datatype,
                findings,
                data_file: None,
                facts: None,
            });
        }
        let opened = match format {
            Format::Raster => from_raster(raster::read_indices(path, options.max_voxels))?,
            _ => open(path, options)?,
        };
        let Opened { volume, format, datatype, findings, data_file, facts } = opened;
        if volume.channels() != 1 {
            return Err(Fault::Channels { channels: volume.channels() });
        }
        let labels = labels(volume.as_slice().iter().copied(), None, volume.shape().0)?;
        let volume = LabelMap::from_vec(labels, *volume.geometry()).expect("one label a voxel");
        Ok(Opened { volume, format, datatype, findings, data_file, facts })
    };
    attempt().map_err(|fault| Error::new("read label", path, fault))
}

fn open(path: &Path, options: Options) -> Result<Opened<Image>, Fault> {
    let format = format_of(path)?;
    let plain = |datatype, volume| plain(format, datatype, volume);
    match format {
        Format::Nifti => {
            let fault = |error: nifti::Error| Fault::Nifti(error.into_fault());
            let header = nifti::read_header(path).map_err(fault)?;
            let volume = nifti::read_image_up_to(path, options.max_voxels).map_err(fault)?;
            Ok(Opened { findings: check::check_header(&header), ..plain(header.datatype, volume) })
        }
        Format::Dicom => {
            let series = if path.is_dir() { dicom::series_in(path) } else { dicom::series_of(path) };
            let series = series.map_err(Fault::Dicom)?;
            let stack = series.stack(options.max_voxels).map_err(Fault::Dicom)?;
            let volume = stack.read().map_err(Fault::Dicom)?;
            let findings = stack.notes.iter().cloned().map(check::Finding::Dicom).collect();
            Ok(Opened { findings, facts: Some(series.facts), ..plain(stack.datatype(), volume) })
        }
        Format::MetaImage | Format::Nrrd => {
            let kind = if format == Format::Nrrd { itk::Kind::Nrrd } else { itk::Kind::MetaImage };
            let read = itk::read_image(path, kind, options.max_voxels);
            let (header, volume) = read.map_err(|error| Fault::Itk(error.into_fault()))?;
            Ok(Opened { data_file: header.data_file, ..plain(header.datatype, volume) })
        }
        Format::Raster => from_raster(raster::read_image(path, options.max_voxels)),
    }
}

fn from_raster(read: Result<(Datatype, Image), raster::Error>) -> Result<Opened<Image>, Fault> {
    let (datatype, volume) = read.map_err(|error| Fault::Raster(error.into_fault()))?;
    Ok(plain(Format::Raster, datatype, volume))
}

/// A volume of which nothing else is to be said.
fn plain(format: Format, datatype: Datatype, volume: Image) -> Opened<Image> {
    Opened { volume, format, datatype, findings: Vec::new(), data_file: None, facts: None }
}

fn format_of(path: &Path) -> Result<Format, Fault> {
    if path.is_dir() {
        return Ok(Format::Dicom);
    }
    let mut start = Vec::new();
    std::fs::File::open(path)?.take(132).read_to_end(&mut start)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    by_content(&start).or_else(|| by_name(&name)).ok_or_else(|| {
        start.truncate(8);
        Fault::Unknown { start }
    })
}

/// `start` are the first 132 bytes of a file, or all of it.
fn by_content(start: &[u8]) -> Option<Format> {
    const STARTS: [(&[u8], Format); 8] = [
        (b"NRRD000", Format::Nrrd),
        (b"\x89PNG\r\n\x1a\n", Format::Raster),
        (b"\xFF\xD8\xFF", Format::Raster),
        (b"II*\0", Format::Raster),
        (b"MM\0*", Format::Raster),
        (b"ObjectType", Format::MetaImage),
        (b"NDims", Format::MetaImage),
        // Of the formats that are read only NIfTI is packed as a whole.
        (b"\x1f\x8b", Format::Nifti),
    ];
    if start.get(128..132) == Some(b"DICM") {
        return Some(Format::Dicom);
    }
    let known = STARTS.iter().find(|(bytes, _)| start.starts_with(bytes)).map(|(_, format)| *format);
    let size = start.first_chunk::<4>();
    let nifti = size.is_some_and(|size| {
        [348, 540].contains(&i32::from_le_bytes(*size)) || [348, 540].contains(&i32::from_be_bytes(*size))
    });
    known.or(nifti.then_some(Format::Nifti))
}

/// So that a damaged file is told what it fails to be.
fn by_name(name: &str) -> Option<Format> {
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match () {
        () if ends(&[".nii", ".nii.gz"]) => Some(Format::Nifti),
        () if ends(&[".dcm", ".ima"]) => Some(Format::Dicom),
        () if ends(&[".mha", ".mhd"]) => Some(Format::MetaImage),
        () if ends(&[".nrrd", ".nhdr"]) => Some(Format::Nrrd),
        () if ends(&[".png", ".jpg", ".jpeg", ".tif", ".tiff"]) => Some(Format::Raster),
        () => None,
    }
}
