//! Voxels to `f32` images and `u8` label maps; the crate `nifti` makes numbers of their bytes.

use std::io::BufRead;

use nifti::{DataElement, Endianness, InMemNiftiVolume};

use super::fault::Fault;
use super::header::Header;
use super::source::Source;
use crate::stored::{Datatype, Number, floats, labels, with_type};
use crate::volume::{Image, LabelMap};

pub(super) fn image<R: BufRead>(mut source: Source<R>, max_voxels: usize) -> Result<Image, Fault> {
    let header = source.header(max_voxels)?;
    let bytes = source.voxel_bytes(&header)?;
    let values = match (header.datatype, header.scaling) {
        (Datatype::Float32, None) => typed::<f32>(bytes, &header)?,
        // The crate would scale as well, but in the type that is asked for: a float64 scaled in f32 loses digits.
        (datatype, scaling) => with_type!(datatype, T => {
            floats(typed::<T>(bytes, &header)?.into_iter(), scaling)?
        }),
    };
    Ok(Image::from_vec(values, header.channels, header.geometry)
        .expect("the header gave shape and size alike"))
}

pub(super) fn label<R: BufRead>(mut source: Source<R>, max_voxels: usize) -> Result<LabelMap, Fault> {
    let header = source.header(max_voxels)?;
    if header.channels != 1 {
        return Err(Fault::LabelChannels { channels: header.channels });
    }
    let bytes = source.voxel_bytes(&header)?;
    let shape = header.geometry.shape.0;
    let labels = match (header.datatype, header.scaling) {
        (Datatype::Uint8, None) => typed::<u8>(bytes, &header)?,
        (datatype, scaling) => with_type!(datatype, T => {
            labels(typed::<T>(bytes, &header)?.into_iter(), scaling, shape)?
        }),
    };
    Ok(LabelMap::from_vec(labels, header.geometry).expect("the header gave shape and size alike"))
}

/// The voxels as stored, in this machine's byte order. `T` is the header's type.
fn typed<T: DataElement + Number>(bytes: Vec<u8>, header: &Header) -> Result<Vec<T>, Fault> {
    if let Some(one) = &header.one {
        return Ok(InMemNiftiVolume::from_raw_data(one, bytes)?.into_nifti_typed_data()?);
    }
    // The crate has no volume without a NIfTI-1 header, and its axes end at 65535.
    let order = if header.big_endian { Endianness::Big } else { Endianness::Little };
    Ok(T::from_raw_vec(bytes, order)?)
}
