//! MetaImage (`.mha`, `.mhd`) and NRRD (`.nrrd`, `.nhdr`): a text header, then voxels, raw or deflated.
//!
//! Directions and origins become the RAS affine that SimpleITK's values mean. Voxels may lie in a second file, which
//! must be in the folder of the header. Read: up to four dimensions, one of which may be channels. Not read: text
//! voxels, bzip2, voxels spread over several files. Each is told by name.

mod fault;
mod metaimage;
mod nrrd;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::{GzDecoder, ZlibDecoder};

pub use self::fault::{Error, Fault};
use crate::bounded::{MAX_INFLATION, Short, fill, read_declared};
use crate::stored::{Datatype, Stored};
use crate::volume::{Geometry, Image};

/// The largest header that is read, in bytes.
const MAX_HEADER: usize = 1 << 16;
/// How many bytes of padding may follow the last voxel.
const MAX_PADDING: usize = 1 << 12;

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    MetaImage,
    Nrrd,
}

/// What a header declares, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub geometry: Geometry,
    pub channels: usize,
    pub datatype: Datatype,
    /// The file that holds the voxels, beside this one; `None` when they follow the header.
    pub data_file: Option<String>,
    /// Whether the channels of a voxel lie side by side.
    interleaved: bool,
    big_endian: bool,
    encoding: Encoding,
    /// Bytes before the voxels in their file, or behind the header.
    skip: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Raw,
    Zlib,
    Gzip,
}

/// Reads and checks the header alone.
pub fn read_header(path: &Path, kind: Kind, max_voxels: usize) -> Result<Header, Error> {
    let attempt = || header(&mut open(path)?.0, kind, max_voxels);
    attempt().map_err(|fault| Error::new("read the header of", path, fault))
}

/// Reads an image as `[c, z, y, x]` in `f32`.
pub fn read_image(path: &Path, kind: Kind, max_voxels: usize) -> Result<(Header, Image), Error> {
    let attempt = || {
        let (mut file, stored) = open(path)?;
        let header = header(&mut file, kind, max_voxels)?;
        let image = match &header.data_file {
            None => voxels(&header, file, stored)?,
            Some(name) => {
                let (file, stored) = open(&path.with_file_name(name))
                    .map_err(|fault| Fault::DataFile { name: name.clone(), text: fault.to_string() })?;
                voxels(&header, file, stored)?
            }
        };
        Ok((header, image))
    };
    attempt().map_err(|fault| Error::new("read image", path, fault))
}

/// Reads an image whose voxels follow its header from bytes in memory.
pub fn decode_image(bytes: &[u8], kind: Kind, max_voxels: usize) -> Result<(Header, Image), Fault> {
    let mut rest = bytes;
    let header = header(&mut rest, kind, max_voxels)?;
    if let Some(name) = &header.data_file {
        return Err(Fault::DataFile { name: name.clone(), text: "no folder is at hand".into() });
    }
    let image = voxels(&header, rest, bytes.len() as u64)?;
    Ok((header, image))
}

fn open(path: &Path) -> Result<(BufReader<File>, u64), Fault> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile);
    }
    Ok((BufReader::with_capacity(1 << 16, file), metadata.len()))
}

fn header(input: &mut impl BufRead, kind: Kind, max_voxels: usize) -> Result<Header, Fault> {
    match kind {
        Kind::MetaImage => metaimage::parse(&mut Lines { input, read: 0 }, max_voxels),
        Kind::Nrrd => nrrd::parse(&mut Lines { input, read: 0 }, max_voxels),
    }
}

/// The lines of a header, as long as they are text and not too many.
struct Lines<'a, R> {
    input: &'a mut R,
    read: usize,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line without its end; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<String>, Fault> {
        let mut line = Vec::new();
        self.input.by_ref().take((MAX_HEADER - self.read) as u64).read_until(b'\n', &mut line)?;
        self.read += line.len();
        if self.read >= MAX_HEADER {
            return Err(Fault::LongHeader { limit: MAX_HEADER });
        }
        if line.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8(line).map_err(|_| Fault::NotText)?;
        Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
    }
}

/// The number of bytes of all voxels, once it is known that they may be read.
fn declared_bytes(
    shape: [usize; 3],
    channels: usize,
    datatype: Datatype,
    max_voxels: usize,
) -> Result<usize, Fault> {
    let declared = shape
        .iter()
        .chain([&channels])
        .try_fold(1_u128, |n, &d| n.checked_mul(d as u128))
        .unwrap_or(u128::MAX);
    let voxels = usize::try_from(declared).ok().filter(|&n| n <= max_voxels);
    let bytes = voxels.and_then(|n| n.checked_mul(datatype.bytes()));
    bytes.ok_or(Fault::TooLarge { voxels: declared, limit: max_voxels })
}

fn voxels(header: &Header, mut input: impl BufRead, stored: u64) -> Result<Image, Fault> {
    let channels = header.channels;
    let declared = declared_bytes(header.geometry.shape.0, channels, header.datatype, usize::MAX)?;
    let possible = match header.encoding {
        Encoding::Raw => stored.saturating_sub(header.skip),
        Encoding::Zlib | Encoding::Gzip => stored.saturating_mul(MAX_INFLATION),
    };
    if declared as u64 > possible {
        return Err(Fault::Implausible { declared, stored });
    }
    let skipped = std::io::copy(&mut input.by_ref().take(header.skip), &mut std::io::sink())?;
    if skipped < header.skip {
        return Err(Fault::Truncated { declared, found: 0 });
    }
    let bytes = match header.encoding {
        Encoding::Raw => exactly(&mut input, declared)?,
        Encoding::Zlib => exactly(&mut ZlibDecoder::new(input), declared)?,
        Encoding::Gzip => exactly(&mut GzDecoder::new(input), declared)?,
    };
    let &Header { datatype, big_endian, .. } = header;
    let mut values = Stored { bytes: &bytes, datatype, big_endian }.to_f32()?;
    if header.interleaved && channels > 1 {
        let apart = (0..channels).flat_map(|channel| values.iter().skip(channel).step_by(channels).copied());
        values = apart.collect();
    }
    Ok(Image::from_vec(values, channels, header.geometry).expect("the header gave shape and size alike"))
}

fn exactly(input: &mut impl Read, declared: usize) -> Result<Vec<u8>, Fault> {
    let bytes = read_declared(input, declared).map_err(|short| match short {
        Short::End { found } => Fault::Truncated { declared, found },
        Short::Memory => Fault::Memory { bytes: declared },
        Short::Io(error) => Fault::Io(error),
    })?;
    // Reading to the end also verifies the checksum of what was deflated.
    let mut padding = vec![0; MAX_PADDING + 1];
    let found = fill(input, &mut padding)?;
    if found > MAX_PADDING || padding[..found].iter().any(|byte| !byte.is_ascii_whitespace() && *byte != 0) {
        return Err(Fault::Trailing { declared });
    }
    Ok(bytes)
}

/// A name in the same folder, so that a header cannot make anybody read other files.
fn data_file(key: &'static str, name: &str) -> Result<String, Fault> {
    let plain = !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != "..";
    if plain {
        Ok(name.to_owned())
    } else {
        Err(Fault::value(key, name, "the name of a file in the same folder"))
    }
}

/// Numbers separated by blanks.
fn numbers<T: std::str::FromStr>(
    key: &'static str,
    text: &str,
    expected: &'static str,
) -> Result<Vec<T>, Fault> {
    let parsed: Result<Vec<T>, _> = text.split_whitespace().map(str::parse).collect();
    parsed.map_err(|_| Fault::value(key, text, expected))
}
