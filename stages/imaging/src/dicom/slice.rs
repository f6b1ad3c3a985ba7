//! One DICOM image: what its header says, checked, and its pixels as scaled numbers.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::attribute::{
    BITS_ALLOCATED, BITS_STORED, COLUMNS, FRAMES, HIGH_BIT, IMAGER_PIXEL_SPACING, MODALITY, ORIENTATION,
    PATIENT_ID, PHOTOMETRIC, PIXEL_REPRESENTATION, PIXEL_SPACING, POSITION, RESCALE_INTERCEPT, RESCALE_SLOPE,
    ROWS, SAMPLES_PER_PIXEL, SERIES_DESCRIPTION, SERIES_INSTANCE, SLICE_THICKNESS, SOP_INSTANCE,
    SPACING_BETWEEN_SLICES, STUDY_DATE, STUDY_INSTANCE,
};
use super::codec;
use super::element::{Elements, PixelData, fragments};
use super::fault::{Error, Fault};
use super::syntax::TransferSyntax;
use crate::stored::Datatype;

/// Who and what was scanned. Empty where the file does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    pub patient_id: String,
    pub study_uid: String,
    pub series_uid: String,
    /// `YYYYMMDD`.
    pub study_date: String,
    /// Such as `MR`.
    pub modality: String,
    pub description: String,
}

/// One image file of a series. Holds no pixels.
#[derive(Debug, Clone)]
pub struct Slice {
    pub path: PathBuf,
    pub facts: Facts,
    pub rows: u16,
    pub columns: u16,
    pub(super) instance_uid: String,
    /// Centre of the first pixel in millimetres, LPS.
    pub(super) position_mm: Option<[f64; 3]>,
    /// Unit vectors along a row and along a column, LPS.
    pub(super) orientation: Option<[f64; 6]>,
    /// Between rows, between columns.
    pub(super) spacing_mm: Option<[f64; 2]>,
    /// Distance to the next slice as far as one slice can tell.
    pub(super) thickness_mm: Option<f64>,
    /// `MONOCHROME1`: low values are shown bright.
    pub(super) inverted: bool,
    bits: Bits,
    slope: f64,
    intercept: f64,
    syntax: TransferSyntax,
    pixels: PixelData,
    file_bytes: u64,
}

/// Which bits of a cell hold the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bits {
    allocated: u16,
    stored: u16,
    signed: bool,
}

impl Slice {
    /// Reads the header of a file, up to its pixels.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let attempt = || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(Fault::NotAFile);
            }
            Self::parse(path, BufReader::new(file), metadata.len())
        };
        attempt().map_err(|fault| Error::new("read the header of", path, fault))
    }

    pub(super) fn parse<R: Read + Seek>(path: &Path, reader: R, length: u64) -> Result<Self, Fault> {
        let elements = Elements::read(reader, length)?;
        let pixels = elements.pixels.ok_or(Fault::NoPixels)?;
        let text = |attribute| elements.text(attribute).unwrap_or_default();
        let required = |attribute| {
            elements.short(attribute)?.ok_or_else(|| super::attribute::Attribute::missing(attribute))
        };
        let frames = elements.numbers::<1>(FRAMES)?.map_or(1.0, |[n]| n);
        if frames != 1.0 {
            return Err(Fault::Frames(frames.max(0.0) as u64));
        }
        let samples = elements.short(SAMPLES_PER_PIXEL)?.unwrap_or(1);
        let photometric = text(PHOTOMETRIC);
        if samples != 1 || photometric == "PALETTE COLOR" {
            return Err(Fault::Colour { samples, photometric });
        }
        let (rows, columns) = (required(ROWS)?, required(COLUMNS)?);
        for (attribute, length) in [(ROWS, rows), (COLUMNS, columns)] {
            if length == 0 {
                return Err(attribute.fault("0", "at least 1"));
            }
        }
        let [slope] = elements.numbers(RESCALE_SLOPE)?.unwrap_or([1.0]);
        if slope == 0.0 {
            return Err(RESCALE_SLOPE.fault("0", "a number other than 0"));
        }
        let [intercept] = elements.numbers(RESCALE_INTERCEPT)?.unwrap_or([0.0]);
        let positive = |attribute| match elements.numbers::<1>(attribute)? {
            Some([v]) if v > 0.0 => Ok(Some(v)),
            _ => Ok::<_, Fault>(None),
        };
        let slice = Self {
            path: path.to_owned(),
            facts: Facts {
                patient_id: text(PATIENT_ID),
                study_uid: text(STUDY_INSTANCE),
                series_uid: text(SERIES_INSTANCE),
                study_date: text(STUDY_DATE),
                modality: text(MODALITY),
                description: text(SERIES_DESCRIPTION),
            },
            rows,
            columns,
            instance_uid: text(SOP_INSTANCE),
            position_mm: elements.numbers(POSITION)?,
            orientation: elements.numbers(ORIENTATION)?,
            spacing_mm: spacing(&elements)?,
            thickness_mm: positive(SPACING_BETWEEN_SLICES)?.or(positive(SLICE_THICKNESS)?),
            inverted: photometric == "MONOCHROME1",
            bits: bits(&elements)?,
            slope,
            intercept,
            syntax: elements.syntax,
            pixels,
            file_bytes: length,
        };
        slice.check_length()?;
        Ok(slice)
    }

    /// The type of the stored values.
    pub fn datatype(&self) -> Datatype {
        match (self.bits.allocated, self.bits.signed) {
            (8, false) => Datatype::Uint8,
            (8, true) => Datatype::Int8,
            (16, false) => Datatype::Uint16,
            (16, true) => Datatype::Int16,
            (_, false) => Datatype::Uint32,
            (_, true) => Datatype::Int32,
        }
    }

    /// The file's name without its folder, for messages.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    pub(super) fn pixel_count(&self) -> usize {
        usize::from(self.rows) * usize::from(self.columns)
    }

    fn native_bytes(&self) -> usize {
        self.pixel_count() * usize::from(self.bits.allocated / 8)
    }

    /// Plain pixels have exactly the size of the image, or one byte of padding.
    fn check_length(&self) -> Result<(), Fault> {
        let encapsulation = |found, expected| Err(Fault::Encapsulation { found, expected });
        match (self.pixels.length, self.syntax.compressed()) {
            (None, true) => Ok(()),
            (None, false) => encapsulation("compressed", "they are plain"),
            (Some(_), true) => encapsulation("plain", "they are compressed"),
            (Some(found), false) => {
                let (expected, found) = (self.native_bytes() as u64, u64::from(found));
                if found != expected.next_multiple_of(2) && found != expected {
                    let (rows, columns) = (self.rows, self.columns);
                    return Err(Fault::PixelLength { rows, columns, expected, found });
                }
                Ok(())
            }
        }
    }

    /// The cells as the file stores them, decompressed: little-endian unless the syntax is big-endian.
    pub(super) fn cells(&self) -> Result<Vec<u8>, Fault> {
        let mut reader = BufReader::new(File::open(&self.path)?);
        self.cells_from(&mut reader)
    }

    pub(super) fn cells_from<R: Read + Seek>(&self, reader: &mut R) -> Result<Vec<u8>, Fault> {
        let bytes = self.native_bytes();
        if self.pixels.length.is_some() {
            reader.seek(SeekFrom::Start(self.pixels.offset))?;
            let mut cells = vec![0; bytes];
            reader.read_exact(&mut cells)?;
            return Ok(cells);
        }
        let packed = fragments(reader, self.pixels.offset, self.file_bytes)?;
        let frame =
            codec::Frame { rows: self.rows, columns: self.columns, cell_bytes: self.bits.allocated / 8 };
        match self.syntax {
            TransferSyntax::RunLength => codec::run_length(&packed, frame),
            _ => codec::jpeg(&packed, frame),
        }
    }

    /// Appends the values, scaled in `f64` and rounded to `f32` once.
    pub(super) fn append_values(&self, cells: &[u8], values: &mut Vec<f32>) {
        let big = self.syntax.big_endian();
        let Bits { allocated, stored, signed } = self.bits;
        let unused = 32 - u32::from(stored);
        let value = |cell: u32| {
            // To the top of the word and back, which extends the sign or clears what lies above.
            let top = cell << unused;
            let number =
                if signed { f64::from(top.cast_signed() >> unused) } else { f64::from(top >> unused) };
            (number * self.slope + self.intercept) as f32
        };
        match allocated {
            8 => values.extend(cells.iter().map(|&cell| value(u32::from(cell)))),
            16 => values.extend(cells.chunks_exact(2).map(|c| {
                let c = [c[0], c[1]];
                value(u32::from(if big { u16::from_be_bytes(c) } else { u16::from_le_bytes(c) }))
            })),
            _ => values.extend(cells.chunks_exact(4).map(|c| {
                let c = [c[0], c[1], c[2], c[3]];
                value(if big { u32::from_be_bytes(c) } else { u32::from_le_bytes(c) })
            })),
        }
    }
}

/// What kind of thing a file holds, whether that is an image or not.
pub(super) fn modality(path: &Path) -> Result<String, Fault> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let elements = Elements::read(BufReader::new(file), length)?;
    Ok(elements.text(MODALITY).unwrap_or_default())
}

/// Patient space if the file has it, else the detector of a radiograph.
fn spacing(elements: &Elements) -> Result<Option<[f64; 2]>, Fault> {
    for attribute in [PIXEL_SPACING, IMAGER_PIXEL_SPACING] {
        if let Some(spacing) = elements.numbers::<2>(attribute)? {
            if spacing.iter().any(|v| *v <= 0.0) {
                return Err(attribute.fault(&format!("{spacing:?}"), "two positive numbers"));
            }
            return Ok(Some(spacing));
        }
    }
    Ok(None)
}

fn bits(elements: &Elements) -> Result<Bits, Fault> {
    let allocated = elements.short(BITS_ALLOCATED)?.ok_or_else(|| BITS_ALLOCATED.missing())?;
    let stored = elements.short(BITS_STORED)?.unwrap_or(allocated);
    let high = elements.short(HIGH_BIT)?.unwrap_or_else(|| stored.saturating_sub(1));
    let signed = match elements.short(PIXEL_REPRESENTATION)?.unwrap_or(0) {
        0 => false,
        1 => true,
        other => return Err(PIXEL_REPRESENTATION.fault(&other.to_string(), "0 or 1")),
    };
    // PS3.5, 8.1.1: the value lies in the low bits. pydicom and ITK misread older files where it does not.
    let fits = [8, 16, 32].contains(&allocated) && (1..=allocated).contains(&stored) && high + 1 == stored;
    if !fits {
        return Err(Fault::Bits { allocated, stored, high });
    }
    if allocated == 8 && elements.syntax.big_endian() {
        return Err(Fault::BigEndianBytes);
    }
    Ok(Bits { allocated, stored, signed })
}
