//! The fields of a NIfTI-1 (348 bytes) or NIfTI-2 header (540 bytes) as numbers. Judges only what tells the two apart.

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

impl Raw {
    /// `bytes` begins with a whole header.
    pub(super) fn parse(bytes: &[u8], version: Version, big_endian: bool) -> Result<Self, Fault> {
        let fields = Fields { bytes, big_endian };
        match version {
            Version::One => Self::parse_one(&fields),
            Version::Two => Self::parse_two(&fields),
        }
    }

    fn parse_one(f: &Fields) -> Result<Self, Fault> {
        match f.take::<4>(344) {
            [b'n', b'+', b'1', 0] => {}
            [b'n', b'i', b'1', 0] => return Err(Fault::HeaderImagePair),
            magic => return Err(Fault::NotNifti { sizeof_hdr: 348, magic }),
        }
        Ok(Self {
            version: Version::One,
            dim: array(40, 2, |at| i64::from(f.i16(at))),
            datatype: f.i16(70),
            bitpix: f.i16(72),
            pixdim: array(76, 4, |at| f.f32(at)),
            vox_offset: f.f32(108),
            slope: f.f32(112),
            intercept: f.f32(116),
            xyzt_units: i32::from(f.bytes[123]),
            qform_code: i32::from(f.i16(252)),
            sform_code: i32::from(f.i16(254)),
            quaternion: array(256, 4, |at| f.f32(at)),
            offset_mm: array(268, 4, |at| f.f32(at)),
            srow: array(280, 16, |row| array(row, 4, |at| f.f32(at))),
        })
    }

    fn parse_two(f: &Fields) -> Result<Self, Fault> {
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

    fn f32(&self, at: usize) -> f64 {
        f64::from(if self.big_endian {
            f32::from_be_bytes(self.take(at))
        } else {
            f32::from_le_bytes(self.take(at))
        })
    }

    fn f64(&self, at: usize) -> f64 {
        if self.big_endian { f64::from_be_bytes(self.take(at)) } else { f64::from_le_bytes(self.take(at)) }
    }
}

/// `N` fields, `step` bytes apart.
fn array<T, const N: usize>(at: usize, step: usize, read: impl Fn(usize) -> T) -> [T; N] {
    std::array::from_fn(|k| read(at + k * step))
}
