//! Stored voxels to `f32` images and `u8` label maps.

use std::io::BufRead;

use nifti::{DataElement, InMemNiftiVolume};

use super::LABEL_TOLERANCE;
use super::fault::Fault;
use super::header::{Datatype, Header, Scaling};
use super::source::Source;
use crate::volume::{Image, LabelMap};

pub(super) fn image<R: BufRead>(mut source: Source<R>, max_voxels: usize) -> Result<Image, Fault> {
    let header = source.header(max_voxels)?;
    let voxels = volume(&mut source, &header)?;
    let scaling = header.scaling;
    let values = match header.datatype {
        Datatype::Uint8 => to_f32(&typed::<u8>(voxels)?, scaling, f64::from, f32::from),
        Datatype::Int8 => to_f32(&typed::<i8>(voxels)?, scaling, f64::from, f32::from),
        Datatype::Uint16 => to_f32(&typed::<u16>(voxels)?, scaling, f64::from, f32::from),
        Datatype::Int16 => to_f32(&typed::<i16>(voxels)?, scaling, f64::from, f32::from),
        Datatype::Uint32 => to_f32(&typed::<u32>(voxels)?, scaling, f64::from, |v| v as f32),
        Datatype::Int32 => to_f32(&typed::<i32>(voxels)?, scaling, f64::from, |v| v as f32),
        Datatype::Uint64 => to_f32(&typed::<u64>(voxels)?, scaling, |v| v as f64, |v| v as f32),
        Datatype::Int64 => to_f32(&typed::<i64>(voxels)?, scaling, |v| v as f64, |v| v as f32),
        Datatype::Float64 => to_f32(&typed::<f64>(voxels)?, scaling, |v| v, |v| v as f32),
        Datatype::Float32 => {
            let stored = typed::<f32>(voxels)?;
            match scaling {
                None => Ok(stored),
                Some(_) => to_f32(&stored, scaling, f64::from, |v| v),
            }
        }
    }?;
    Ok(Image::from_vec(values, header.channels, header.geometry)
        .expect("the header gave shape and size alike"))
}

pub(super) fn label<R: BufRead>(mut source: Source<R>, max_voxels: usize) -> Result<LabelMap, Fault> {
    let header = source.header(max_voxels)?;
    if header.channels != 1 {
        return Err(Fault::LabelChannels { channels: header.channels });
    }
    let voxels = volume(&mut source, &header)?;
    let labels = match header.datatype {
        Datatype::Uint8 => {
            let stored = typed::<u8>(voxels)?;
            match header.scaling {
                None => Ok(stored),
                Some(_) => to_labels(&stored, &header, f64::from),
            }
        }
        Datatype::Int8 => to_labels(&typed::<i8>(voxels)?, &header, f64::from),
        Datatype::Uint16 => to_labels(&typed::<u16>(voxels)?, &header, f64::from),
        Datatype::Int16 => to_labels(&typed::<i16>(voxels)?, &header, f64::from),
        Datatype::Uint32 => to_labels(&typed::<u32>(voxels)?, &header, f64::from),
        Datatype::Int32 => to_labels(&typed::<i32>(voxels)?, &header, f64::from),
        Datatype::Uint64 => to_labels(&typed::<u64>(voxels)?, &header, |v| v as f64),
        Datatype::Int64 => to_labels(&typed::<i64>(voxels)?, &header, |v| v as f64),
        Datatype::Float32 => to_labels(&typed::<f32>(voxels)?, &header, f64::from),
        Datatype::Float64 => to_labels(&typed::<f64>(voxels)?, &header, |v| v),
    }?;
    Ok(LabelMap::from_vec(labels, header.geometry).expect("the header gave shape and size alike"))
}

/// Hands the decoder exactly the voxels the header declares, found at `vox_offset`, with a type that fits.
fn volume<R: BufRead>(source: &mut Source<R>, header: &Header) -> Result<InMemNiftiVolume, Fault> {
    let bytes = source.voxel_bytes(header)?;
    // Typed data come back as stored; scaling is ours, because the decoder's rounds through f32.
    let (slope, intercept) = (0.0, 0.0);
    let datatype = header.datatype.nifti_type();
    Ok(InMemNiftiVolume::from_raw_fields(
        header.raw_dim,
        datatype,
        slope,
        intercept,
        bytes,
        header.endianness(),
    )?)
}

fn typed<T: DataElement>(volume: InMemNiftiVolume) -> Result<Vec<T>, Fault> {
    Ok(volume.into_nifti_typed_data()?)
}

fn to_f32<T: Copy>(
    stored: &[T],
    scaling: Option<Scaling>,
    wide: impl Fn(T) -> f64,
    narrow: impl Fn(T) -> f32,
) -> Result<Vec<f32>, Fault> {
    let mut values = Vec::new();
    let bytes = size_of_val(stored) / size_of::<T>() * size_of::<f32>();
    values.try_reserve_exact(stored.len()).map_err(|_| Fault::Memory { bytes })?;
    match scaling {
        None => values.extend(stored.iter().map(|&v| narrow(v))),
        Some(s) => values.extend(stored.iter().map(|&v| (wide(v) * s.slope + s.intercept) as f32)),
    }
    Ok(values)
}

fn to_labels<T: Copy>(stored: &[T], header: &Header, wide: impl Fn(T) -> f64) -> Result<Vec<u8>, Fault> {
    let scaling = header.scaling.unwrap_or(Scaling { slope: 1.0, intercept: 0.0 });
    let mut labels = Vec::new();
    labels.try_reserve_exact(stored.len()).map_err(|_| Fault::Memory { bytes: stored.len() })?;
    let mut bad = None;
    let mut count = 0;
    for (i, &v) in stored.iter().enumerate() {
        let value = wide(v) * scaling.slope + scaling.intercept;
        let nearest = value.round();
        // Written so that NaN fails.
        let is_label = (0.0..=255.0).contains(&nearest) && (value - nearest).abs() <= LABEL_TOLERANCE;
        if !is_label {
            count += 1;
            bad.get_or_insert((i, value));
        }
        labels.push(nearest as u8);
    }
    match bad {
        None => Ok(labels),
        Some((i, value)) => {
            let [_, y, x] = header.geometry.shape.0;
            Err(Fault::LabelValue { count, value, at: [i / (x * y), i / x % y, i % x] })
        }
    }
}
