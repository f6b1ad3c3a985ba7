//! Volumes to `.nii` and `.nii.gz`. Same volume, same bytes: no time, name or host enters the file.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};

use super::affine::quaternion;
use super::fault::{Error, Fault};
use super::header::code;
use crate::stored::Datatype;
use crate::volume::{Geometry, Image, LabelMap};

/// Writes an image as `float32`; compressed when the name ends in `.gz`.
///
/// The affine is stored as sform (and as qform where a quaternion can express it) in `f32`, NIfTI's precision.
/// One channel makes a three-dimensional file, several a four-dimensional one.
pub fn write_image(path: &Path, image: &Image) -> Result<(), Error> {
    write_file(path, |out| encode_image(image, out)).map_err(|fault| Error::new("write image", path, fault))
}

/// Writes a label map as `uint8`; compressed when the name ends in `.gz`. See [`write_image`].
pub fn write_label(path: &Path, label: &LabelMap) -> Result<(), Error> {
    write_file(path, |out| encode_label(label, out)).map_err(|fault| Error::new("write label", path, fault))
}

/// Encodes an image as an uncompressed NIfTI-1 file.
pub fn encode_image(image: &Image, out: &mut dyn Write) -> Result<(), Fault> {
    out.write_all(&header(image.geometry(), image.channels(), Datatype::Float32)?)?;
    let mut chunk = Vec::with_capacity(1 << 16);
    for values in image.as_slice().chunks(1 << 14) {
        chunk.clear();
        chunk.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        out.write_all(&chunk)?;
    }
    Ok(())
}

/// Encodes a label map as an uncompressed NIfTI-1 file.
pub fn encode_label(label: &LabelMap, out: &mut dyn Write) -> Result<(), Fault> {
    out.write_all(&header(label.geometry(), 1, Datatype::Uint8)?)?;
    out.write_all(label.as_slice())?;
    Ok(())
}

/// zlib's default level. Part of the bytes, so it is fixed.
const LEVEL: Compression = Compression::new(6);

fn write_file(path: &Path, encode: impl FnOnce(&mut dyn Write) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut file = BufWriter::with_capacity(1 << 16, std::fs::File::create(path)?);
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
        // 255: unknown operating system, so that every platform writes the same byte.
        let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(&mut file, LEVEL);
        encode(&mut gzip)?;
        gzip.finish()?;
    } else {
        encode(&mut file)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(())
}

/// Header, empty extension flag: 352 bytes, little-endian.
fn header(geometry: &Geometry, channels: usize, datatype: Datatype) -> Result<[u8; 352], Fault> {
    let [z, y, x] = geometry.shape.0;
    if channels == 0 || x * y * z == 0 {
        return Err(Fault::Empty(vec![channels, z, y, x]));
    }
    let axis = |length: usize| i16::try_from(length).map_err(|_| Fault::AxisTooLong(length));
    let rank = if channels == 1 { 3 } else { 4 };
    let dim = [rank, axis(x)?, axis(y)?, axis(z)?, axis(channels)?, 1, 1, 1];
    if let Some(defect) = geometry.affine.defect() {
        return Err(Fault::Affine { source_name: "volume's", defect });
    }
    let qform = quaternion(&geometry.affine);
    let [sz, sy, sx] = geometry.spacing_mm().map(|v| v as f32);
    let qfac = qform.as_ref().map_or(1.0, |q| q.qfac);

    let mut bytes = Fields([0; 352]);
    bytes.i32(0, 348);
    bytes.0[38] = b'r'; // `regular`, as every writer sets it
    dim.iter().enumerate().for_each(|(k, &d)| bytes.i16(40 + 2 * k, d));
    bytes.i16(70, code(datatype));
    bytes.i16(72, datatype.bytes() as i16 * 8);
    bytes.f32s(76, &[qfac, sx, sy, sz, 1.0, 1.0, 1.0, 1.0]);
    bytes.f32s(108, &[352.0, 1.0, 0.0]); // vox_offset, scl_slope, scl_inter
    bytes.0[123] = 2 | 8; // millimetres, seconds
    // 2 = aligned to the coordinates of another file: the volume this one was derived from.
    bytes.i16(252, if qform.is_some() { 2 } else { 0 });
    bytes.i16(254, 2);
    let origin = geometry.affine.origin_mm().map(|v| v as f32);
    bytes.f32s(256, &qform.map_or([0.0; 3], |q| q.bcd));
    bytes.f32s(268, &origin);
    for row in 0..3 {
        bytes.f32s(280 + 16 * row, &geometry.affine.0[row].map(|v| v as f32));
    }
    bytes.0[344..348].copy_from_slice(b"n+1\0");
    Ok(bytes.0)
}

struct Fields([u8; 352]);

impl Fields {
    fn i16(&mut self, at: usize, value: i16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn i32(&mut self, at: usize, value: i32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn f32s(&mut self, at: usize, values: &[f32]) {
        for (k, value) in values.iter().enumerate() {
            self.0[at + 4 * k..at + 4 * k + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
}
