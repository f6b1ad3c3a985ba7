//! Stored voxels to `f32` images and `u8` label maps.

use std::io::BufRead;

use super::fault::Fault;
use super::header::Header;
use super::source::Source;
use crate::stored::Stored;
use crate::volume::{Image, LabelMap};

pub(super) fn image<R: BufRead>(mut source: Source<R>, max_voxels: usize) -> Result<Image, Fault> {
    let header = source.header(max_voxels)?;
    let bytes = source.voxel_bytes(&header)?;
    let values = stored(&bytes, &header).to_f32()?;
    Ok(Image::from_vec(values, header.channels, header.geometry)
        .expect("the header gave shape and size alike"))
}

pub(super) fn label<R: BufRead>(mut source: Source<R>, max_voxels: usize) -> Result<LabelMap, Fault> {
    let header = source.header(max_voxels)?;
    if header.channels != 1 {
        return Err(Fault::LabelChannels { channels: header.channels });
    }
    let bytes = source.voxel_bytes(&header)?;
    let labels = stored(&bytes, &header).to_labels(header.geometry.shape.0)?;
    Ok(LabelMap::from_vec(labels, header.geometry).expect("the header gave shape and size alike"))
}

fn stored<'a>(bytes: &'a [u8], header: &Header) -> Stored<'a> {
    let &Header { datatype, big_endian, scaling, .. } = header;
    Stored { bytes, datatype, big_endian, scaling }
}
