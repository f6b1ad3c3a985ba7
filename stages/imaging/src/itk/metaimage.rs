//! The header of MetaImage: `Key = value` lines, the last of which says where the voxels are.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::fault::Fault;
use super::{Encoding, Header, Lines, data_file, declared_bytes, numbers};
use crate::affine::Affine;
use crate::stored::Datatype;
use crate::volume::Geometry;

/// Ends the header.
const DATA: &str = "ElementDataFile";
/// The voxel size, by either name.
const SPACING: &[&str] = &["ElementSpacing", "ElementSize"];

pub(super) fn parse(lines: &mut Lines<impl BufRead>, max_voxels: usize) -> Result<Header, Fault> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let data = loop {
        let line = lines.next()?.ok_or(Fault::NoData(DATA))?;
        let Some((key, value)) = line.split_once('=') else {
            if line.trim().is_empty() {
                continue;
            }
            return Err(if fields.is_empty() {
                Fault::Format { expected: "MetaImage", found: line }
            } else {
                Fault::Line(line)
            });
        };
        if key.trim() == DATA {
            break value.trim().to_owned();
        }
        fields.insert(key.trim().to_owned(), value.trim().to_owned());
    };
    let get = |keys: &[&'static str]| keys.iter().find_map(|key| Some((*key, fields.get(*key)?.as_str())));
    let flag = |keys: &[&'static str]| match get(keys) {
        Some((_, "True" | "true" | "1")) => Ok(true),
        None | Some((_, "False" | "false" | "0")) => Ok(false),
        Some((key, text)) => Err(Fault::value(key, text, "True or False")),
    };
    if let Some((key, text)) = get(&["BinaryData"]).filter(|(_, text)| !["True", "true", "1"].contains(text))
    {
        return Err(Fault::value(key, text, "True: voxels as text are not supported"));
    }
    if data == "LIST" || data.contains('%') {
        return Err(Fault::value(DATA, &data, "LOCAL or one file"));
    }
    let (key, text) = get(&["DimSize"]).ok_or(Fault::Missing("DimSize"))?;
    let size: Vec<usize> = numbers(key, text, "whole numbers")?;
    let rank = size.len();
    if !(1..=4).contains(&rank) || size.contains(&0) {
        return Err(Fault::Dimensions(size));
    }
    let floats = |keys: &[&'static str], count: usize, default: Vec<f64>| match get(keys) {
        None => Ok(default),
        Some((key, text)) => {
            let found: Vec<f64> = numbers(key, text, "numbers")?;
            if found.len() == count {
                Ok(found)
            } else {
                Err(Fault::value(key, text, "as many numbers as there are dimensions"))
            }
        }
    };
    let unit = |at: usize| f64::from(u8::from(at / rank == at % rank));
    let spacing = floats(SPACING, rank, vec![1.0; rank])?;
    if let Some((key, text)) = get(SPACING).filter(|_| !spacing.iter().all(|size| *size > 0.0)) {
        return Err(Fault::value(key, text, "positive lengths in millimetres"));
    }
    let origin = floats(&["Offset", "Position", "Origin"], rank, vec![0.0; rank])?;
    let directions = floats(
        &["TransformMatrix", "Rotation", "Orientation"],
        rank * rank,
        (0..rank * rank).map(unit).collect(),
    )?;
    // `rank` numbers after each other are the direction of one axis, in LPS.
    let sign = [-1.0, -1.0, 1.0];
    let steps = std::array::from_fn(|axis| {
        std::array::from_fn(|k| match (axis < rank, k < rank) {
            (true, true) => sign[k] * directions[axis * rank + k] * spacing[axis] + 0.0,
            _ => {
                if axis == k {
                    sign[k]
                } else {
                    0.0
                }
            }
        })
    });
    let origin = std::array::from_fn(|k| if k < rank { sign[k] * origin[k] + 0.0 } else { 0.0 });
    let affine = Affine::from_columns(steps, origin);
    if let Some(defect) = affine.defect() {
        return Err(Fault::Affine(defect));
    }
    let length = |axis: usize| size.get(axis).copied().unwrap_or(1);
    let shape = [length(2), length(1), length(0)];
    let (key, text) = get(&["ElementType"]).ok_or(Fault::Missing("ElementType"))?;
    let datatype =
        datatype(text).ok_or_else(|| Fault::value(key, text, "a type of 8 to 64 bits such as MET_SHORT"))?;
    let per_voxel = match get(&["ElementNumberOfChannels"]) {
        None => 1,
        Some((key, text)) => text
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| Fault::value(key, text, "a positive whole number"))?,
    };
    let ((channels, 1) | (1, channels)) = (per_voxel, length(3)) else {
        return Err(Fault::Dimensions(size));
    };
    declared_bytes(shape, channels, datatype, max_voxels)?;
    let skip = match get(&["HeaderSize"]) {
        None => 0,
        Some((key, text)) => text.parse().map_err(|_| Fault::value(key, text, "a number of bytes"))?,
    };
    Ok(Header {
        geometry: Geometry::new(shape, affine),
        channels,
        datatype,
        data_file: if data == "LOCAL" || data == "Local" || data == "local" {
            None
        } else {
            Some(data_file(DATA, &data)?)
        },
        interleaved: per_voxel > 1,
        big_endian: flag(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])?,
        encoding: if flag(&["CompressedData"])? { Encoding::Zlib } else { Encoding::Raw },
        skip,
    })
}

fn datatype(text: &str) -> Option<Datatype> {
    Some(match text {
        "MET_CHAR" => Datatype::Int8,
        "MET_UCHAR" => Datatype::Uint8,
        "MET_SHORT" => Datatype::Int16,
        "MET_USHORT" => Datatype::Uint16,
        "MET_INT" => Datatype::Int32,
        "MET_UINT" => Datatype::Uint32,
        // ITK writes eight bytes for both.
        "MET_LONG_LONG" => Datatype::Int64,
        "MET_ULONG_LONG" => Datatype::Uint64,
        "MET_FLOAT" => Datatype::Float32,
        "MET_DOUBLE" => Datatype::Float64,
        _ => return None,
    })
}
