//! NumPy `.npy` files of `float32` and `uint8` in C order. Any Python reads them: `numpy.load(path, mmap_mode="r")`.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use thiserror::Error;

use crate::file_error::FileError;
use crate::volume::{Geometry, Image, LabelMap};

/// A `.npy` file that could not be read or written; [`Fault`] is the cause.
pub type Error = FileError<Fault>;

/// What is wrong with a `.npy` file.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No `.npy` header.
    #[error("not a .npy file of version 1.0, 2.0 or 3.0")]
    NotNpy,
    /// A header that says something else than three known keys.
    #[error("the header `{0}` is not understood")]
    Header(String),
    /// Elements of another type.
    #[error("elements are `{found}`, expected `{expected}`")]
    Dtype { found: String, expected: &'static str },
    /// Fortran order.
    #[error("the array is in Fortran order, expected C order")]
    FortranOrder,
    /// The file's length contradicts its header.
    #[error("the header declares {shape:?}, which takes {expected} bytes, but {found} bytes follow")]
    Length { shape: Vec<usize>, expected: u128, found: u64 },
    /// An array of another shape.
    #[error("the array is {found:?}, expected {expected}")]
    Shape { found: Vec<usize>, expected: String },
}

/// What a `.npy` file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// NumPy's type string, such as `<f4` or `|u1`.
    pub descr: String,
    /// Whether the first axis is the fastest.
    pub fortran_order: bool,
    /// Axis lengths, slowest first.
    pub shape: Vec<usize>,
    /// Where the elements begin, in bytes from the start of the file.
    pub data_offset: u64,
}

/// An element type that is stored: `f32` as `<f4`, `u8` as `|u1`.
pub trait Element: Copy + Default + sealed::Sealed {
    /// NumPy's type string.
    const DESCR: &'static str;
}

impl Element for f32 {
    const DESCR: &'static str = "<f4";
}

impl Element for u8 {
    const DESCR: &'static str = "|u1";
}

mod sealed {
    pub trait Sealed: Sized {
        fn encode(values: &[Self], out: &mut Vec<u8>);
        fn decode(bytes: Vec<u8>) -> Vec<Self>;
    }

    impl Sealed for f32 {
        fn encode(values: &[Self], out: &mut Vec<u8>) {
            out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }

        fn decode(bytes: Vec<u8>) -> Vec<Self> {
            bytes.chunks_exact(4).map(|b| Self::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
    }

    impl Sealed for u8 {
        fn encode(values: &[Self], out: &mut Vec<u8>) {
            out.extend_from_slice(values);
        }

        fn decode(bytes: Vec<u8>) -> Vec<Self> {
            bytes
        }
    }
}

/// Writes an array of `shape` whose elements are in C order. Version 1.0, data aligned to 64 bytes, as numpy does.
///
/// Panics when `values` does not have as many elements as `shape` says.
pub fn write<T: Element>(path: &Path, shape: &[usize], values: &[T]) -> Result<(), Error> {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?} does not fit the elements");
    let attempt = || -> Result<(), Fault> {
        let mut file = BufWriter::with_capacity(1 << 16, std::fs::File::create(path)?);
        file.write_all(&encode_header(T::DESCR, shape))?;
        let mut chunk = Vec::with_capacity(1 << 16);
        for values in values.chunks(1 << 14) {
            chunk.clear();
            T::encode(values, &mut chunk);
            file.write_all(&chunk)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(())
    };
    attempt().map_err(|fault| Error::new("write array", path, fault))
}

/// Writes an image as a `float32` array `[c, z, y, x]`.
pub fn write_image(path: &Path, image: &Image) -> Result<(), Error> {
    write(path, image.voxels().shape(), image.as_slice())
}

/// Writes a label map as a `uint8` array `[z, y, x]`.
pub fn write_label(path: &Path, label: &LabelMap) -> Result<(), Error> {
    write(path, label.voxels().shape(), label.as_slice())
}

/// Reads the header alone.
pub fn read_header(path: &Path) -> Result<Header, Error> {
    let attempt = || parse_header(&mut std::fs::File::open(path)?);
    attempt().map_err(|fault| Error::new("read the header of", path, fault))
}

/// Reads a C-order array of `T`. The file must be exactly as long as its header says.
pub fn read<T: Element>(path: &Path) -> Result<ArrayD<T>, Error> {
    let attempt = || {
        let file = std::fs::File::open(path)?;
        let stored = file.metadata()?.len();
        decode(&mut BufReader::new(file), stored)
    };
    attempt().map_err(|fault| Error::new("read array", path, fault))
}

/// Reads a `float32` array `[c, z, y, x]` as an image on `geometry`.
pub fn read_image(path: &Path, geometry: Geometry) -> Result<Image, Error> {
    let array = read::<f32>(path)?;
    let found = array.shape().to_vec();
    let image = match found[..] {
        [channels, ..] if found.len() == 4 => {
            Image::from_vec(array.into_raw_vec_and_offset().0, channels, geometry).ok()
        }
        _ => None,
    };
    image.filter(|image| image.voxels().shape() == found).ok_or_else(|| {
        let expected = format!("[channels, {:?}]", geometry.shape.0);
        Error::new("read image", path, Fault::Shape { found, expected })
    })
}

/// Reads a `uint8` array `[z, y, x]` as a label map on `geometry`.
pub fn read_label(path: &Path, geometry: Geometry) -> Result<LabelMap, Error> {
    let array = read::<u8>(path)?;
    let found = array.shape().to_vec();
    if found != geometry.shape.0 {
        let fault = Fault::Shape { found, expected: format!("{:?}", geometry.shape.0) };
        return Err(Error::new("read label", path, fault));
    }
    LabelMap::from_vec(array.into_raw_vec_and_offset().0, geometry).map_err(|_| {
        let fault = Fault::Shape { found, expected: "at least one voxel".to_owned() };
        Error::new("read label", path, fault)
    })
}

fn encode_header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    let axes = lengths.join(", ") + if shape.len() == 1 { "," } else { "" }; // a tuple of one is `(5,)`
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
    let unpadded = 10 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a header with a handful of axes is short");
    [b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), text.as_bytes()].concat()
}

pub(crate) fn parse_header(input: &mut impl Read) -> Result<Header, Fault> {
    let mut start = [0_u8; 10];
    read_or(input, &mut start, || Fault::NotNpy)?;
    let (length, offset) = match &start[..8] {
        b"\x93NUMPY\x01\x00" => (u32::from(u16::from_le_bytes([start[8], start[9]])), 10),
        b"\x93NUMPY\x02\x00" | b"\x93NUMPY\x03\x00" => {
            let mut rest = [0_u8; 2];
            read_or(input, &mut rest, || Fault::NotNpy)?;
            (u32::from_le_bytes([start[8], start[9], rest[0], rest[1]]), 12)
        }
        _ => return Err(Fault::NotNpy),
    };
    if length > 1 << 16 {
        return Err(Fault::NotNpy);
    }
    let mut text = vec![0_u8; length as usize];
    read_or(input, &mut text, || Fault::NotNpy)?;
    let text = String::from_utf8(text).map_err(|_| Fault::NotNpy)?;
    let fields = parse_dict(text.trim()).ok_or_else(|| Fault::Header(text.trim().to_owned()))?;
    Ok(Header { data_offset: u64::from(length) + offset, ..fields })
}

/// The Python dictionary that numpy writes: exactly `descr`, `fortran_order` and `shape`, in any order.
fn parse_dict(text: &str) -> Option<Header> {
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, value) = rest.strip_prefix('\'')?.split_once('\'')?;
        let value = value.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                let (found, rest) = value.strip_prefix('\'')?.split_once('\'')?;
                descr.replace(found.to_owned()).is_none().then_some(rest)?
            }
            "fortran_order" => {
                let (found, rest) = value
                    .strip_prefix("False")
                    .map(|r| (false, r))
                    .or(value.strip_prefix("True").map(|r| (true, r)))?;
                fortran_order.replace(found).is_none().then_some(rest)?
            }
            "shape" => {
                let (found, rest) = value.strip_prefix('(')?.split_once(')')?;
                let lengths = found.split(',').map(str::trim).filter(|s| !s.is_empty());
                let lengths = lengths.map(|s| s.parse().ok()).collect::<Option<Vec<usize>>>()?;
                shape.replace(lengths).is_none().then_some(rest)?
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').map_or(rest, str::trim_start);
    }
    Some(Header { descr: descr?, fortran_order: fortran_order?, shape: shape?, data_offset: 0 })
}

fn decode<T: Element>(input: &mut impl Read, stored: u64) -> Result<ArrayD<T>, Fault> {
    let header = parse_header(input)?;
    if header.descr != T::DESCR {
        return Err(Fault::Dtype { found: header.descr, expected: T::DESCR });
    }
    if header.fortran_order {
        return Err(Fault::FortranOrder);
    }
    let found = stored.saturating_sub(header.data_offset);
    let size = size_of::<T>() as u128;
    let expected = header.shape.iter().try_fold(size, |n, &d| n.checked_mul(d as u128)).unwrap_or(u128::MAX);
    let length = || Fault::Length { shape: header.shape.clone(), expected, found };
    if expected != u128::from(found) {
        return Err(length());
    }
    let mut bytes = vec![0_u8; found as usize];
    read_or(input, &mut bytes, length)?;
    ArrayD::from_shape_vec(IxDyn(&header.shape), T::decode(bytes)).map_err(|_| length())
}

fn read_or(input: &mut impl Read, buffer: &mut [u8], short: impl FnOnce() -> Fault) -> Result<(), Fault> {
    input
        .read_exact(buffer)
        .map_err(|e| if e.kind() == io::ErrorKind::UnexpectedEof { short() } else { e.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_header(shape: &[usize], text: &str) {
        let header = encode_header("<f4", shape);
        assert_eq!(header.len() % 64, 0);
        assert_eq!(String::from_utf8_lossy(&header[10..]).trim_end(), text);
        let parsed = parse_header(&mut &header[..]).expect("own header");
        assert_eq!((parsed.shape.as_slice(), parsed.data_offset), (shape, header.len() as u64));
    }

    #[test]
    fn headers_are_what_numpy_writes() {
        check_header(
            &[1, 35, 51, 36],
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 35, 51, 36), }",
        );
        check_header(&[5], "{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }");
        check_header(&[], "{'descr': '<f4', 'fortran_order': False, 'shape': (), }");
    }

    #[test]
    fn keys_in_another_order_are_read_and_unknown_or_repeated_ones_are_not() {
        assert!(parse_dict("{'shape': (2,), 'fortran_order': True, 'descr': '|u1'}").is_some());
        assert!(parse_dict("{'shape': (2,), 'fortran_order': False}").is_none());
        assert!(
            parse_dict("{'shape': (2,), 'shape': (3,), 'fortran_order': False, 'descr': '|u1'}").is_none()
        );
        assert!(parse_dict("{'shape': (2,), 'fortran_order': False, 'descr': '|u1', 'extra': 1}").is_none());
        assert!(parse_dict("{'shape': (-2,), 'fortran_order': False, 'descr': '|u1'}").is_none());
    }

    #[test]
    fn a_length_that_contradicts_the_header_is_an_error_before_anything_is_allocated() {
        let mut file = encode_header("|u1", &[usize::MAX, usize::MAX, 4]);
        file.extend([0; 16]);
        let error = decode::<u8>(&mut &file[..], file.len() as u64).expect_err("overflow");
        assert!(matches!(error, Fault::Length { .. }), "{error}");
        let mut file = encode_header("|u1", &[17]);
        file.extend([0; 16]);
        assert!(decode::<u8>(&mut &file[..], file.len() as u64).is_err());
    }

    #[test]
    fn another_type_is_an_error_that_names_both() {
        let file = encode_header("<f8", &[0]);
        let error = decode::<f32>(&mut &file[..], file.len() as u64).expect_err("f64");
        assert_eq!(error.to_string(), "elements are `<f8`, expected `<f4`");
    }
}
