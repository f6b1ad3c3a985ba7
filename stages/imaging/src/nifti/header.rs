//! The 348 bytes of a NIfTI-1 header, checked claim by claim.

use std::fmt;

use nifti::{Endianness, NiftiHeader, NiftiType};

use super::affine;
use super::fault::Fault;
use crate::volume::{Geometry, Shape};

pub use super::affine::AffineSource;

/// What a NIfTI file declares about its voxels.
#[derive(Debug, Clone)]
pub struct Header {
    /// Channels or time points: the product of the dimensions beyond x, y, z.
    pub channels: usize,
    /// The grid: shape z, y, x and affine, chosen by nibabel's rule (sform, else qform, else pixdim).
    pub geometry: Geometry,
    /// Where the affine comes from.
    pub affine_source: AffineSource,
    /// `pixdim`, z, y, x, as stored. The affine is what counts; see [`crate::check`] for disagreement.
    pub pixdim: [f64; 3],
    /// The declared unit of space. Readers, this one included, take every affine as millimetres.
    pub space_unit: SpaceUnit,
    /// How a voxel is stored.
    pub datatype: Datatype,
    /// `value = stored · slope + intercept`; `None` when values are stored as they are.
    pub scaling: Option<Scaling>,
    /// Whether the file is big-endian.
    pub big_endian: bool,
    pub(super) data_offset: u64,
    pub(super) data_bytes: usize,
    pub(super) raw_dim: [u16; 8],
}

/// Linear scaling of stored values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Multiplies the stored value; finite and not 0.
    pub slope: f64,
    /// Is added afterwards; finite.
    pub intercept: f64,
}

/// The unit of space in `xyzt_units`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaceUnit {
    Unknown,
    Metre,
    Millimetre,
    Micron,
}

/// How a voxel is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    Uint8,
    Int8,
    Uint16,
    Int16,
    Uint32,
    Int32,
    Uint64,
    Int64,
    Float32,
    Float64,
}

impl Datatype {
    /// The name numpy uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uint8 => "uint8",
            Self::Int8 => "int8",
            Self::Uint16 => "uint16",
            Self::Int16 => "int16",
            Self::Uint32 => "uint32",
            Self::Int32 => "int32",
            Self::Uint64 => "uint64",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }

    /// Bytes per voxel.
    pub fn bytes(self) -> usize {
        self.nifti_type().size_of()
    }

    /// Whether every stored value is a whole number.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::Float32 | Self::Float64)
    }

    pub(super) fn nifti_type(self) -> NiftiType {
        match self {
            Self::Uint8 => NiftiType::Uint8,
            Self::Int8 => NiftiType::Int8,
            Self::Uint16 => NiftiType::Uint16,
            Self::Int16 => NiftiType::Int16,
            Self::Uint32 => NiftiType::Uint32,
            Self::Int32 => NiftiType::Int32,
            Self::Uint64 => NiftiType::Uint64,
            Self::Int64 => NiftiType::Int64,
            Self::Float32 => NiftiType::Float32,
            Self::Float64 => NiftiType::Float64,
        }
    }

    fn from_code(header: &NiftiHeader) -> Result<Self, Fault> {
        let unsupported = |name| Fault::Datatype { code: header.datatype, name };
        match header.data_type().map_err(|_| unsupported("of an unknown code"))? {
            NiftiType::Uint8 => Ok(Self::Uint8),
            NiftiType::Int8 => Ok(Self::Int8),
            NiftiType::Uint16 => Ok(Self::Uint16),
            NiftiType::Int16 => Ok(Self::Int16),
            NiftiType::Uint32 => Ok(Self::Uint32),
            NiftiType::Int32 => Ok(Self::Int32),
            NiftiType::Uint64 => Ok(Self::Uint64),
            NiftiType::Int64 => Ok(Self::Int64),
            NiftiType::Float32 => Ok(Self::Float32),
            NiftiType::Float64 => Ok(Self::Float64),
            NiftiType::Float128 => Err(unsupported("float128")),
            NiftiType::Complex64 => Err(unsupported("complex64")),
            NiftiType::Complex128 => Err(unsupported("complex128")),
            NiftiType::Complex256 => Err(unsupported("complex256")),
            NiftiType::Rgb24 => Err(unsupported("rgb24")),
            NiftiType::Rgba32 => Err(unsupported("rgba32")),
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Header {
    pub(super) fn parse(bytes: &[u8; 348], max_voxels: usize) -> Result<Self, Fault> {
        check_format(bytes)?;
        let raw = NiftiHeader::from_reader(&bytes[..])?;
        if raw.sizeof_hdr != 348 {
            // dim[0] and the header size disagree about the byte order.
            return Err(Fault::NotNifti { sizeof_hdr: raw.sizeof_hdr, magic: raw.magic });
        }
        let (shape, channels) = grid(&raw)?;
        let datatype = Datatype::from_code(&raw)?;
        if i64::from(raw.bitpix) != datatype.bytes() as i64 * 8 {
            return Err(Fault::BitsPerVoxel {
                bitpix: raw.bitpix,
                datatype: datatype.name(),
                expected: datatype.bytes() * 8,
            });
        }
        let declared = shape
            .0
            .iter()
            .chain([&channels])
            .try_fold(1_u128, |n, &d| n.checked_mul(d as u128))
            .unwrap_or(u128::MAX);
        let voxels = usize::try_from(declared).ok().filter(|&n| n <= max_voxels);
        let data_bytes = voxels.and_then(|n| n.checked_mul(datatype.bytes()));
        let data_bytes = data_bytes.ok_or(Fault::TooLarge { voxels: declared, limit: max_voxels })?;
        let (affine, affine_source) = affine::of(&raw)?;
        Ok(Self {
            channels,
            geometry: Geometry { shape, affine },
            affine_source,
            pixdim: [3, 2, 1].map(|axis| f64::from(raw.pixdim[axis])),
            space_unit: match raw.xyzt_units & 0o7 {
                1 => SpaceUnit::Metre,
                2 => SpaceUnit::Millimetre,
                3 => SpaceUnit::Micron,
                _ => SpaceUnit::Unknown,
            },
            datatype,
            scaling: scaling(&raw)?,
            big_endian: raw.endianness == Endianness::Big,
            data_offset: data_offset(raw.vox_offset)?,
            data_bytes,
            raw_dim: raw.dim,
        })
    }

    pub(super) fn endianness(&self) -> Endianness {
        if self.big_endian { Endianness::Big } else { Endianness::Little }
    }
}

/// Tells what is not NIfTI-1 before the decoder, which only looks at the magic, is asked.
fn check_format(bytes: &[u8; 348]) -> Result<(), Fault> {
    let first = [bytes[0], bytes[1], bytes[2], bytes[3]];
    let magic = [bytes[344], bytes[345], bytes[346], bytes[347]];
    let (little, big) = (i32::from_le_bytes(first), i32::from_be_bytes(first));
    if little == 540 || big == 540 {
        return Err(Fault::Nifti2);
    }
    match &magic {
        b"n+1\0" if little == 348 || big == 348 => Ok(()),
        b"ni1\0" if little == 348 || big == 348 => Err(Fault::HeaderImagePair),
        _ => Err(Fault::NotNifti { sizeof_hdr: little, magic }),
    }
}

/// Shape z, y, x and channels. Dimensions that are not declared have length 1.
fn grid(raw: &NiftiHeader) -> Result<(Shape, usize), Fault> {
    let dim = raw.dim.map(|d| d as i16);
    let rank = usize::from(raw.dim[0]);
    if !(1..=7).contains(&rank) || dim[1..=rank].iter().any(|&d| d <= 0) {
        return Err(Fault::Dimensions { dim });
    }
    let length = |axis: usize| if axis <= rank { usize::from(raw.dim[axis]) } else { 1 };
    let beyond: Vec<usize> = (4..=7).map(length).filter(|&d| d > 1).collect();
    match beyond[..] {
        [] => Ok((Shape([length(3), length(2), length(1)]), 1)),
        [channels] => Ok((Shape([length(3), length(2), length(1)]), channels)),
        _ => Err(Fault::TooManyDimensions { dim }),
    }
}

/// 0 is refused like anything below 352: nibabel then reads the header as voxels, the NIfTI library starts at 348.
fn data_offset(vox_offset: f32) -> Result<u64, Fault> {
    // Whole numbers are exact in f32 up to 2²⁴; nothing legitimate comes near.
    if vox_offset.fract() != 0.0 || !(352.0..=16_777_216.0).contains(&vox_offset) {
        return Err(Fault::DataOffset(vox_offset));
    }
    Ok(vox_offset as u64)
}

/// nibabel's rule: a slope of 0, NaN or infinity means no scaling at all.
fn scaling(raw: &NiftiHeader) -> Result<Option<Scaling>, Fault> {
    let (slope, intercept) = (raw.scl_slope, raw.scl_inter);
    if slope == 0.0 || !slope.is_finite() {
        return Ok(None);
    }
    if !intercept.is_finite() {
        return Err(Fault::Scaling { slope, intercept });
    }
    let identity = slope == 1.0 && intercept == 0.0;
    Ok((!identity).then(|| Scaling { slope: f64::from(slope), intercept: f64::from(intercept) }))
}
