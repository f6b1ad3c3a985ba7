//! PNG, JPEG and TIFF: one image of 8 or 16 bits, grey or in colour, as a volume of one slice.
//!
//! Values are as stored (0 to 255 or 65535), rows from top to bottom, voxels of 1 mm. These formats know no place in
//! space; as in ITK, rows run to the back and columns to the left, which shows a picture upright. Red, green and blue are three channels. Transparency and several pages are refused.

mod tags;

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, metadata::Orientation};
use thiserror::Error;

use crate::affine::Affine;
use crate::file_error::FileError;
use crate::stored::Datatype;
use crate::volume::{Geometry, Image};

/// An image that could not be read; [`Fault`] is the cause.
pub type Error = FileError<Fault>;

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
    /// Neither grey nor red, green and blue, in whole numbers.
    #[error("pixels are {0}, expected whole numbers of 8 or 16 bits")]
    Pixels(&'static str),
    /// An alpha channel that is not opaque everywhere.
    #[error("pixels are partly transparent, expected opaque ones")]
    Transparent,
    /// A tag of a TIFF that cannot be true.
    #[error("a tag declares {declared} bytes, the file has {stored}")]
    Tag { declared: u64, stored: u64 },
    /// More than one page.
    #[error("the TIFF has more than one page; split it into one file a slice, or store it as NIfTI or NRRD")]
    Pages,
    /// More pixels than may be read.
    #[error("the image has {height}×{width} pixels, the limit is {limit}")]
    TooLarge { height: u32, width: u32, limit: usize },
}

/// Reads an image as `[channel, 1, y, x]`, with the type of its stored values. Turned as its EXIF orientation says.
/// `max_voxels` bounds voxels × channels.
pub fn read_image(path: &Path, max_voxels: usize) -> Result<(Datatype, Image), Error> {
    let attempt = || decode(BufReader::new(File::open(path)?), max_voxels);
    attempt().map_err(|fault| Error::new("read image", path, fault))
}

/// Reads an image from bytes in memory. See [`read_image`].
pub fn decode_image(bytes: &[u8], max_voxels: usize) -> Result<(Datatype, Image), Fault> {
    decode(Cursor::new(bytes), max_voxels)
}

/// Reads the indices of an image with a palette of colours, which is how masks are often stored, as an image of one
/// channel; any other as [`read_image`] does.
pub fn read_indices(path: &Path, max_voxels: usize) -> Result<(Datatype, Image), Error> {
    let attempt = || match indices(BufReader::new(File::open(path)?), max_voxels)? {
        Some(image) => Ok((Datatype::Uint8, image)),
        None => decode(BufReader::new(File::open(path)?), max_voxels),
    };
    attempt().map_err(|fault| Error::new("read image", path, fault))
}

fn indices<R: Read + Seek + std::io::BufRead>(input: R, max_voxels: usize) -> Result<Option<Image>, Fault> {
    let decoder = |error: png::DecodingError| Fault::Decoder(error.to_string());
    let limits = png::Limits { bytes: 2 * max_voxels + (1 << 20) };
    let mut png = png::Decoder::new_with_limits(input, limits);
    png.set_transformations(png::Transformations::IDENTITY);
    // What is no PNG is told by the reader of all formats.
    let Ok(mut reader) = png.read_info() else { return Ok(None) };
    let (color, depth) = reader.output_color_type();
    if color != png::ColorType::Indexed {
        return Ok(None);
    }
    let (width, height) = (reader.info().width, reader.info().height);
    check_size(width, height, 1, max_voxels)?;
    let size = reader.output_buffer_size().ok_or_else(|| Fault::Decoder("it is too large".to_owned()))?;
    let mut rows = vec![0; size];
    let frame = reader.next_frame(&mut rows).map_err(decoder)?;
    let bits = depth as usize;
    let index = |row: &[u8], x: usize| {
        let from_the_left = x * bits % 8;
        f32::from(row[x * bits / 8] << from_the_left >> (8 - bits))
    };
    let rows = rows[..frame.buffer_size()].chunks(frame.line_size);
    let values = rows.flat_map(|row| (0..width as usize).map(move |x| index(row, x))).collect();
    volume(values, 1, height, width).map(Some)
}

fn check_size(width: u32, height: u32, channels: u64, max_voxels: usize) -> Result<(), Fault> {
    if u64::from(width) * u64::from(height) * channels > max_voxels as u64 {
        return Err(Fault::TooLarge { height, width, limit: max_voxels });
    }
    Ok(())
}

fn volume(values: Vec<f32>, channels: usize, height: u32, width: u32) -> Result<Image, Fault> {
    let geometry = Geometry::new([1, height as usize, width as usize], Affine::of_picture([1.0; 3]));
    Image::from_vec(values, channels, geometry).map_err(|error| Fault::Decoder(error.to_string()))
}

fn decode<R: Read + Seek + std::io::BufRead>(
    mut input: R,
    max_voxels: usize,
) -> Result<(Datatype, Image), Fault> {
    let format = ImageReader::new(&mut input).with_guessed_format()?.format();
    let format = format.filter(|f| matches!(f, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Tiff));
    let format = format.ok_or(Fault::Format)?;
    if format == ImageFormat::Tiff {
        tags::check(&mut input)?;
    }
    let mut reader = ImageReader::with_format(&mut input, format);
    // Four samples of 16 bits a pixel, and as much again for what the decoder keeps.
    let mut limits = Limits::default();
    limits.max_alloc = Some(16 * max_voxels as u64 + (1 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| Fault::Decoder(error.to_string()))?;
    let (width, height) = decoder.dimensions();
    let samples = if decoder.color_type().has_color() { 3 } else { 1 };
    check_size(width, height, samples, max_voxels)?;
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
    channels(&image)
}

/// Splits the samples into channels.
fn channels(image: &DynamicImage) -> Result<(Datatype, Image), Fault> {
    let (datatype, samples, values) = match image {
        DynamicImage::ImageLuma8(pixels) => (Datatype::Uint8, 1, planes(pixels.as_raw(), 1, false)),
        DynamicImage::ImageLumaA8(pixels) => (Datatype::Uint8, 1, planes(pixels.as_raw(), 2, true)),
        DynamicImage::ImageRgb8(pixels) => (Datatype::Uint8, 3, planes(pixels.as_raw(), 3, false)),
        DynamicImage::ImageRgba8(pixels) => (Datatype::Uint8, 3, planes(pixels.as_raw(), 4, true)),
        DynamicImage::ImageLuma16(pixels) => (Datatype::Uint16, 1, planes(pixels.as_raw(), 1, false)),
        DynamicImage::ImageLumaA16(pixels) => (Datatype::Uint16, 1, planes(pixels.as_raw(), 2, true)),
        DynamicImage::ImageRgb16(pixels) => (Datatype::Uint16, 3, planes(pixels.as_raw(), 3, false)),
        DynamicImage::ImageRgba16(pixels) => (Datatype::Uint16, 3, planes(pixels.as_raw(), 4, true)),
        _ => return Err(Fault::Pixels("floating point numbers")),
    };
    let values = values.ok_or(Fault::Transparent)?;
    Ok((datatype, volume(values, samples, image.height(), image.width())?))
}

/// Interleaved samples of each pixel as planes; the last, where it is alpha, must be opaque everywhere and is left out.
fn planes<T: Copy + Into<f32> + PartialEq + Bounded>(
    samples: &[T],
    of_pixel: usize,
    alpha: bool,
) -> Option<Vec<f32>> {
    let kept = of_pixel - usize::from(alpha);
    if alpha && samples.chunks_exact(of_pixel).any(|pixel| pixel[kept] != T::MAX) {
        return None;
    }
    let plane = |channel: usize| samples.iter().skip(channel).step_by(of_pixel).map(|&sample| sample.into());
    Some((0..kept).flat_map(plane).collect())
}

/// Samples that know what opaque is.
trait Bounded {
    const MAX: Self;
}

impl Bounded for u8 {
    const MAX: Self = u8::MAX;
}

impl Bounded for u16 {
    const MAX: Self = u16::MAX;
}
