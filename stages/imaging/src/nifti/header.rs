//! A NIfTI header, checked claim by claim.

use nifti::{NiftiHeader, NiftiType};

use super::affine;
use super::fault::Fault;
use super::raw::{self, Raw, Version};
use crate::stored::{Datatype, Scaling};
use crate::volume::{Geometry, Shape};

pub use super::affine::AffineSource;

/// What a NIfTI file declares about its voxels.
#[derive(Debug, Clone)]
pub struct Header {
    /// NIfTI-1 or NIfTI-2.
    pub version: Version,
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
    /// The header of a NIfTI-1 file as the crate `nifti` parsed it.
    pub(super) one: Option<Box<NiftiHeader>>,
}

/// The unit of space in `xyzt_units`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaceUnit {
    Unknown,
    Metre,
    Millimetre,
    Micron,
}

impl Header {
    /// `bytes` are those of the version's header; without a version at least its first 348.
    pub(super) fn parse(
        bytes: &[u8],
        version: Option<(Version, bool)>,
        max_voxels: usize,
    ) -> Result<Self, Fault> {
        let Some((version, big_endian)) = version else {
            let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            return Err(Fault::NotNifti { sizeof_hdr: i32::from_le_bytes(word(0)), magic: word(344) });
        };
        let (raw, one) = match version {
            Version::One => {
                let header = raw::parse_one(bytes, big_endian)?;
                (Raw::from(&header), Some(Box::new(header)))
            }
            Version::Two => (Raw::parse_two(bytes, big_endian)?, None),
        };
        let (shape, channels) = grid(&raw)?;
        let datatype = datatype(raw.datatype)?;
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
            version,
            channels,
            geometry: Geometry { shape, affine },
            affine_source,
            pixdim: [3, 2, 1].map(|axis| raw.pixdim[axis]),
            space_unit: match raw.xyzt_units & 0o7 {
                1 => SpaceUnit::Metre,
                2 => SpaceUnit::Millimetre,
                3 => SpaceUnit::Micron,
                _ => SpaceUnit::Unknown,
            },
            datatype,
            scaling: scaling(&raw)?,
            big_endian,
            data_offset: data_offset(&raw)?,
            data_bytes,
            one,
        })
    }
}

/// The voxel type of a code; NIfTI-1 and NIfTI-2 share them.
fn datatype(code: i16) -> Result<Datatype, Fault> {
    let unsupported = |name| Fault::Datatype { code, name };
    let header = NiftiHeader { datatype: code, ..NiftiHeader::default() };
    match header.data_type().map_err(|_| unsupported("of an unknown code"))? {
        NiftiType::Uint8 => Ok(Datatype::Uint8),
        NiftiType::Int8 => Ok(Datatype::Int8),
        NiftiType::Uint16 => Ok(Datatype::Uint16),
        NiftiType::Int16 => Ok(Datatype::Int16),
        NiftiType::Uint32 => Ok(Datatype::Uint32),
        NiftiType::Int32 => Ok(Datatype::Int32),
        NiftiType::Uint64 => Ok(Datatype::Uint64),
        NiftiType::Int64 => Ok(Datatype::Int64),
        NiftiType::Float32 => Ok(Datatype::Float32),
        NiftiType::Float64 => Ok(Datatype::Float64),
        NiftiType::Float128 => Err(unsupported("float128")),
        NiftiType::Complex64 => Err(unsupported("complex64")),
        NiftiType::Complex128 => Err(unsupported("complex128")),
        NiftiType::Complex256 => Err(unsupported("complex256")),
        NiftiType::Rgb24 => Err(unsupported("rgb24")),
        NiftiType::Rgba32 => Err(unsupported("rgba32")),
    }
}

/// Shape z, y, x and channels. Dimensions that are not declared have length 1.
fn grid(raw: &Raw) -> Result<(Shape, usize), Fault> {
    let dim = raw.dim;
    let rank = usize::try_from(dim[0]).ok().filter(|rank| (1..=7).contains(rank));
    let rank = rank.filter(|&rank| dim[1..=rank].iter().all(|&length| length > 0));
    let rank = rank.ok_or(Fault::Dimensions { dim })?;
    let length = |axis: usize| if axis <= rank { dim[axis] as usize } else { 1 };
    let beyond: Vec<usize> = (4..=7).map(length).filter(|&d| d > 1).collect();
    match beyond[..] {
        [] => Ok((Shape([length(3), length(2), length(1)]), 1)),
        [channels] => Ok((Shape([length(3), length(2), length(1)]), channels)),
        _ => Err(Fault::TooManyDimensions { dim }),
    }
}

/// 0 is refused like anything within the header: nibabel then reads the header as voxels.
fn data_offset(raw: &Raw) -> Result<u64, Fault> {
    let (offset, least) = (raw.vox_offset, raw.version.first_offset());
    // Whole numbers are exact in f32 up to 2²⁴; nothing legitimate comes near.
    if offset.fract() != 0.0 || !(least as f64..=16_777_216.0).contains(&offset) {
        return Err(Fault::DataOffset { offset, least });
    }
    Ok(offset as u64)
}

/// nibabel's rule: a slope of 0, NaN or infinity means no scaling at all.
fn scaling(raw: &Raw) -> Result<Option<Scaling>, Fault> {
    let (slope, intercept) = (raw.slope, raw.intercept);
    if slope == 0.0 || !slope.is_finite() {
        return Ok(None);
    }
    if !intercept.is_finite() {
        return Err(Fault::Scaling { slope, intercept });
    }
    let identity = slope == 1.0 && intercept == 0.0;
    Ok((!identity).then_some(Scaling { slope, intercept }))
}
