//! PNG, JPEG and TIFF: one grey image of 8 or 16 bits, as a volume of one slice.
//!
//! Values are as stored (0 to 255 or 65535), rows from top to bottom, voxels of 1 mm at the origin: these formats know
//! no place in space. Colour, transparency and several pages are refused unless the caller says what to do.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, metadata::Orientation};
use thiserror::Error;

use crate::stored::Datatype;
use crate::volume::{Geometry, Image};

/// What to do with colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Colour {
    /// An error.
    #[default]
    Refuse,
    /// `(299 R + 587 G + 114 B) / 1000` (ITU-R BT.601), which leaves grey stored as colour as it is.
    Luminance,
}

/// An image that could not be read; [`Fault`] is the cause.
#[derive(Debug, Error)]
#[error("cannot read image `{}`", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    fault: Box<Fault>,
}

impl Error {
    pub(crate) fn into_fault(self) -> Fault {
        *self.fault
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

/// What is wrong.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The decoder: damaged, cut off, or a variant that it does not know.
    #[error("cannot be decoded: {0}")]
    Decoder(String),
    /// Neither PNG, JPEG nor TIFF.
    #[error("neither PNG, JPEG nor TIFF")]
    Format,
    /// Colour, when it is refused.
    #[error("pixels are {0}, expected grey; ask for the luminance if that is meant")]
    Colour(&'static str),
    /// An alpha channel that is not opaque everywhere.
    #[error("pixels are partly transparent, expected opaque grey")]
    Transparent,
    /// More than one page.
    #[error("the TIFF has more than one page; split it into one file a slice, or store it as NIfTI or NRRD")]
    Pages,
    /// More pixels than may be read.
    #[error("the image has {height}×{width} pixels, the limit is {limit}")]
    TooLarge { height: u32, width: u32, limit: usize },
}

/// Reads an image as `[1, 1, y, x]`, with the type of its stored values. Turned as its EXIF orientation says.
pub fn read_image(path: &Path, colour: Colour, max_voxels: usize) -> Result<(Datatype, Image), Error> {
    let attempt = || decode(BufReader::new(File::open(path)?), colour, max_voxels);
    attempt().map_err(|fault| Error { path: path.to_owned(), fault: Box::new(fault) })
}

/// Reads an image from bytes in memory. See [`read_image`].
pub fn decode_image(bytes: &[u8], colour: Colour, max_voxels: usize) -> Result<(Datatype, Image), Fault> {
    decode(Cursor::new(bytes), colour, max_voxels)
}

fn decode<R: Read + Seek + std::io::BufRead>(
    mut input: R,
    colour: Colour,
    max_voxels: usize,
) -> Result<(Datatype, Image), Fault> {
    let mut reader = ImageReader::new(&mut input).with_guessed_format()?;
    let format =
        reader.format().filter(|f| matches!(f, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Tiff));
    let format = format.ok_or(Fault::Format)?;
    // Four samples of 16 bits, and as much again for what the decoder keeps.
    let mut limits = Limits::default();
    limits.max_alloc = Some(16 * max_voxels as u64 + (1 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| Fault::Decoder(error.to_string()))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_voxels as u64 {
        return Err(Fault::TooLarge { height, width, limit: max_voxels });
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| Fault::Decoder(error.to_string()))?;
    if format == ImageFormat::Tiff {
        input.seek(SeekFrom::Start(0))?;
        let pages =
            tiff::decoder::Decoder::new(&mut input).map_err(|error| Fault::Decoder(error.to_string()))?;
        if pages.more_images() {
            return Err(Fault::Pages);
        }
    }
    image.apply_orientation(orientation);
    grey(&image, colour)
}

fn grey(image: &DynamicImage, colour: Colour) -> Result<(Datatype, Image), Fault> {
    let opaque = |all: bool| if all { Ok(()) } else { Err(Fault::Transparent) };
    let weigh = |[r, g, b]: [u32; 3]| (299 * r + 587 * g + 114 * b) as f32 / 1000.0;
    let coloured = |name| if colour == Colour::Luminance { Ok(()) } else { Err(Fault::Colour(name)) };
    let (datatype, values): (_, Vec<f32>) = match image {
        DynamicImage::ImageLuma8(pixels) => {
            (Datatype::Uint8, pixels.pixels().map(|p| f32::from(p.0[0])).collect())
        }
        DynamicImage::ImageLuma16(pixels) => {
            (Datatype::Uint16, pixels.pixels().map(|p| f32::from(p.0[0])).collect())
        }
        DynamicImage::ImageLumaA8(pixels) => {
            opaque(pixels.pixels().all(|p| p.0[1] == u8::MAX))?;
            (Datatype::Uint8, pixels.pixels().map(|p| f32::from(p.0[0])).collect())
        }
        DynamicImage::ImageLumaA16(pixels) => {
            opaque(pixels.pixels().all(|p| p.0[1] == u16::MAX))?;
            (Datatype::Uint16, pixels.pixels().map(|p| f32::from(p.0[0])).collect())
        }
        DynamicImage::ImageRgb8(pixels) => {
            coloured("RGB of 8 bits")?;
            (Datatype::Uint8, pixels.pixels().map(|p| weigh(p.0.map(u32::from))).collect())
        }
        DynamicImage::ImageRgb16(pixels) => {
            coloured("RGB of 16 bits")?;
            (Datatype::Uint16, pixels.pixels().map(|p| weigh(p.0.map(u32::from))).collect())
        }
        DynamicImage::ImageRgba8(pixels) => {
            coloured("RGBA of 8 bits")?;
            opaque(pixels.pixels().all(|p| p.0[3] == u8::MAX))?;
            (
                Datatype::Uint8,
                pixels.pixels().map(|p| weigh([p.0[0], p.0[1], p.0[2]].map(u32::from))).collect(),
            )
        }
        DynamicImage::ImageRgba16(pixels) => {
            coloured("RGBA of 16 bits")?;
            opaque(pixels.pixels().all(|p| p.0[3] == u16::MAX))?;
            (
                Datatype::Uint16,
                pixels.pixels().map(|p| weigh([p.0[0], p.0[1], p.0[2]].map(u32::from))).collect(),
            )
        }
        _ => return Err(Fault::Colour("floating point numbers")),
    };
    let shape = [1, image.height() as usize, image.width() as usize];
    let image = Image::from_vec(values, 1, Geometry::with_spacing(shape, [1.0; 3]))
        .map_err(|error| Fault::Decoder(error.to_string()))?;
    Ok((datatype, image))
}
