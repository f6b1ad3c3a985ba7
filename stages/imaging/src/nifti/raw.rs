//! The fields of a NIfTI-1 (348 bytes) or NIfTI-2 header (540 bytes) as numbers. Judges only what tells the two apart.

use nifti::{Endianness, NiftiHeader};

use super::fault::Fault;

/// Which layout a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

impl Version {
    /// The size of the header in bytes.
    pub(super) fn header_bytes(self) -> usize {
        match self {
            Self::One => 348,
            Self::Two => 540,
        }
    }

    /// Header and extension flag: where voxels may begin.
    pub(super) fn first_offset(self) -> u64 {
        self.header_bytes() as u64 + 4
    }

    /// nibabel's: how far the square of the quaternion's first component may be below 0.
    pub(super) fn quaternion_threshold(self) -> f64 {
        3.0 * match self {
            Self::One => f64::from(f32::EPSILON),
            Self::Two => f64::EPSILON,
        }
    }
}

/// The fields that are used, whatever the version.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) version: Version,
    pub(super) dim: [i64; 8],
    pub(super) datatype: i16,
    pub(super) bitpix: i16,
    pub(super) pixdim: [f64; 8],
    pub(super) vox_offset: f64,
    pub(super) slope: f64,
    pub(super) intercept: f64,
    pub(super) xyzt_units: i32,
    pub(super) qform_code: i32,
    pub(super) sform_code: i32,
    pub(super) quaternion: [f64; 3],
    pub(super) offset_mm: [f64; 3],
    pub(super) srow: [[f64; 4]; 3],
}

/// Version and byte order by the first four bytes, which hold the size of the header.
pub(super) fn version(start: [u8; 4]) -> Option<(Version, bool)> {
    let of = |size: i32, big| match size {
        348 => Some((Version::One, big)),
        540 => Some((Version::Two, big)),
        _ => None,
    };
    of(i32::from_le_bytes(start), false).or_else(|| of(i32::from_be_bytes(start), true))
}

/// The header of a NIfTI-1 file, parsed by the crate `nifti`, which looks only at `dim[0]` and the magic.
///
/// `bytes` are the first 348; `big_endian` is what the size of the header says.
pub(super) fn parse_one(bytes: &[u8], big_endian: bool) -> Result<NiftiHeader, Fault> {
    let magic = [bytes[344], bytes[345], bytes[346], bytes[347]];
    match &magic {
        b"n+1\0" => {}
        b"ni1\0" => return Err(Fault::HeaderImagePair),
        _ => return Err(Fault::NotNifti { sizeof_hdr: 348, magic }),
    }
    let header = NiftiHeader::from_reader(bytes)?;
    // The crate takes the byte order from dim[0] alone.
    if (header.endianness == Endianness::Big) == big_endian {
        Ok(header)
    } else {
        Err(Fault::ByteOrder { rank: header.dim[0].swap_bytes() })
    }
}

impl From<&NiftiHeader> for Raw {
    fn from(header: &NiftiHeader) -> Self {
        let (wide, wide_rows) = (f64::from, |row: [f32; 4]| row.map(f64::from));
        Self {
            version: Version::One,
            // The standard's dimensions are signed.
            dim: header.dim.map(|length| i64::from(length as i16)),
            datatype: header.datatype,
            bitpix: header.bitpix,
            pixdim: header.pixdim.map(wide),
            vox_offset: wide(header.vox_offset),
            slope: wide(header.scl_slope),
            intercept: wide(header.scl_inter),
            xyzt_units: i32::from(header.xyzt_units),
            qform_code: i32::from(header.qform_code),
            sform_code: i32::from(header.sform_code),
            quaternion: [header.quatern_b, header.quatern_c, header.quatern_d].map(wide),
            offset_mm: [header.quatern_x, header.quatern_y, header.quatern_z].map(wide),
            srow: [header.srow_x, header.srow_y, header.srow_z].map(wide_rows),
        }
    }
}

impl Raw {
    /// `bytes` begins with a whole NIfTI-2 header, which the crate `nifti` does not know.
    pub(super) fn parse_two(bytes: &[u8], big_endian: bool) -> Result<Self, Fault> {
        let f = Fields { bytes, big_endian };
        match &f.take::<8>(4) {
            b"n+2\0\r\n\x1a\n" => {}
            b"ni2\0\r\n\x1a\n" => return Err(Fault::HeaderImagePair),
            [a, b, c, d, ..] => return Err(Fault::NotNifti { sizeof_hdr: 540, magic: [*a, *b, *c, *d] }),
        }
        Ok(Self {
            version: Version::Two,
            dim: array(16, 8, |at| f.i64(at)),
            datatype: f.i16(12),
            bitpix: f.i16(14),
            pixdim: array(104, 8, |at| f.f64(at)),
            vox_offset: f.i64(168) as f64,
            slope: f.f64(176),
            intercept: f.f64(184),
            xyzt_units: f.i32(500),
            qform_code: f.i32(344),
            sform_code: f.i32(348),
            quaternion: array(352, 8, |at| f.f64(at)),
            offset_mm: array(376, 8, |at| f.f64(at)),
            srow: array(400, 32, |row| array(row, 8, |at| f.f64(at))),
        })
    }
}

struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn take<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("a slice of N bytes")
    }

    fn i16(&self, at: usize) -> i16 {
        if self.big_endian { i16::from_be_bytes(self.take(at)) } else { i16::from_le_bytes(self.take(at)) }
    }

    fn i32(&self, at: usize) -> i32 {
        if self.big_endian { i32::from_be_bytes(self.take(at)) } else { i32::from_le_bytes(self.take(at)) }
    }

    fn i64(&self, at: usize) -> i64 {
        if self.big_endian { i64::from_be_bytes(self.take(at)) } else { i64::from_le_bytes(self.take(at)) }
    }

    fn f64(&self, at: usize) -> f64 {
        if self.big_endian { f64::from_be_bytes(self.take(at)) } else { f64::from_le_bytes(self.take(at)) }
    }
}

/// `N` fields, `step` bytes apart.
fn array<T, const N: usize>(at: usize, step: usize, read: impl Fn(usize) -> T) -> [T; N] {
    std::array::from_fn(|k| read(at + k * step))
}
