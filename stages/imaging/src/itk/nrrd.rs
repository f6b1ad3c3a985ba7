//! The header of NRRD: `field: value` lines up to an empty one.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::fault::Fault;
use super::{Encoding, Header, Lines, data_file, declared_bytes, numbers};
use crate::affine::Affine;
use crate::stored::Datatype;
use crate::volume::Geometry;

pub(super) fn parse(lines: &mut Lines<impl BufRead>, max_voxels: usize) -> Result<Header, Fault> {
    let magic = lines.next()?.unwrap_or_default();
    if !magic.starts_with("NRRD000") {
        return Err(Fault::Format { expected: "NRRD", found: magic });
    }
    let fields = Fields::read(lines)?;
    let (key, text) = fields.required("sizes")?;
    let sizes: Vec<usize> = numbers(key, text, "whole numbers")?;
    if let Some((key, text)) = fields.get("dimension").filter(|(_, text)| text.parse() != Ok(sizes.len())) {
        return Err(Fault::value(key, text, "the number of `sizes`"));
    }
    if !(1..=4).contains(&sizes.len()) || sizes.contains(&0) {
        return Err(Fault::Dimensions(sizes));
    }
    let steps = fields.steps(sizes.len())?;
    // The axis without a step in space holds the channels; without any, the fourth does.
    let beyond: Vec<usize> = (0..sizes.len()).filter(|&axis| steps[axis].is_none()).collect();
    let channel_axis = match beyond[..] {
        [] if sizes.len() == 4 => return Err(Fault::Dimensions(sizes)),
        [] => None,
        [axis] if axis == 0 || axis == sizes.len() - 1 => Some(axis),
        _ => return Err(Fault::Dimensions(sizes)),
    };
    let spatial: Vec<(usize, [f64; 3])> =
        steps.iter().zip(&sizes).filter_map(|(step, &size)| Some((size, (*step)?))).collect();
    let sign = fields.signs()?;
    let column = |axis: usize| -> [f64; 3] {
        let step = spatial
            .get(axis)
            .map_or_else(|| std::array::from_fn(|k| f64::from(u8::from(k == axis))), |s| s.1);
        std::array::from_fn(|k| sign[k] * step[k] + 0.0)
    };
    let origin = match fields.get("space origin") {
        None => [0.0; 3],
        Some((key, text)) => {
            vector(text).ok_or_else(|| Fault::value(key, text, "a vector such as (0,0,0)"))?
        }
    };
    let origin = std::array::from_fn(|k| sign[k] * origin[k] + 0.0);
    let affine = Affine::from_columns([column(0), column(1), column(2)], origin);
    if let Some(defect) = affine.defect() {
        return Err(Fault::Affine(defect));
    }
    let length = |axis: usize| spatial.get(axis).map_or(1, |(size, _)| *size);
    let shape = [length(2), length(1), length(0)];
    let channels = channel_axis.map_or(1, |axis| sizes[axis]);
    let (key, text) = fields.required("type")?;
    let datatype =
        datatype(text).ok_or_else(|| Fault::value(key, text, "a type of 8 to 64 bits such as short"))?;
    declared_bytes(shape, channels, datatype, max_voxels)?;
    let (key, text) = fields.required("encoding")?;
    let encoding = match text.to_ascii_lowercase().as_str() {
        "raw" => Encoding::Raw,
        "gzip" | "gz" => Encoding::Gzip,
        _ => return Err(Fault::value(key, text, "raw or gzip")),
    };
    let big_endian = match fields.get("endian") {
        Some((_, "big")) => true,
        Some((_, "little")) => false,
        None if datatype.bytes() == 1 => false,
        None => return Err(Fault::Missing("endian")),
        Some((key, text)) => return Err(Fault::value(key, text, "little or big")),
    };
    if let Some((key, text)) = fields.get("line skip").filter(|(_, text)| *text != "0") {
        return Err(Fault::value(key, text, "0"));
    }
    let skip = match fields.get("byte skip") {
        None => 0,
        // Behind the decompressor the field means other bytes.
        Some((key, text)) => {
            let skip = text.parse().ok().filter(|skip| *skip == 0 || encoding == Encoding::Raw);
            skip.ok_or_else(|| Fault::value(key, text, "a number of bytes before raw voxels"))?
        }
    };
    let data = fields.get("data file").or(fields.get("datafile"));
    Ok(Header {
        geometry: Geometry::new(shape, affine),
        channels,
        datatype,
        data_file: data.map(|(key, name)| data_file(key, name)).transpose()?,
        interleaved: channel_axis == Some(0),
        big_endian,
        encoding,
        skip,
    })
}

/// Fields by name in lower case.
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn read(lines: &mut Lines<impl BufRead>) -> Result<Self, Fault> {
        let mut fields = BTreeMap::new();
        loop {
            // A header beside its voxels may end with the file.
            let Some(line) = lines.next()?.filter(|line| !line.is_empty()) else { return Ok(Self(fields)) };
            if line.starts_with('#') || line.contains(":=") {
                continue;
            }
            let Some((key, value)) = line.split_once(": ") else { return Err(Fault::Line(line)) };
            fields.insert(key.to_ascii_lowercase(), value.trim().to_owned());
        }
    }

    fn get(&self, key: &'static str) -> Option<(&'static str, &str)> {
        Some((key, self.0.get(key)?.as_str()))
    }

    fn required(&self, key: &'static str) -> Result<(&'static str, &str), Fault> {
        self.get(key).ok_or(Fault::Missing(key))
    }

    /// The step of each axis in space, as stored; `None` for an axis that is not in space.
    fn steps(&self, rank: usize) -> Result<Vec<Option<[f64; 3]>>, Fault> {
        if let Some((key, text)) =
            self.get("space units").filter(|(_, text)| text.split_whitespace().any(|unit| unit != "\"mm\""))
        {
            return Err(Fault::value(key, text, "\"mm\" for every axis"));
        }
        if let Some((key, text)) = self.get("space directions") {
            let steps: Option<Vec<_>> = vectors(text)
                .map(|text| if text == "none" { Some(None) } else { vector(text).map(Some) })
                .collect();
            let steps = steps.filter(|steps| steps.len() == rank);
            return steps.ok_or_else(|| Fault::value(key, text, "a vector, or none, for each axis"));
        }
        let spacings: Vec<f64> = match self.get("spacings") {
            None => vec![1.0; rank],
            Some((key, text)) => numbers(key, text, "a number for each axis")?,
        };
        let wrong = |expected| Fault::Value { key: "spacings", text: format!("{spacings:?}"), expected };
        if spacings.len() != rank {
            return Err(wrong("a number for each axis"));
        }
        if spacings.iter().any(|size| *size <= 0.0) {
            return Err(wrong("positive lengths in millimetres"));
        }
        // Without directions the axes of space come last (`vector domain domain domain`), NaN has no spacing.
        let first = rank.saturating_sub(3);
        let step = |axis: usize| {
            (axis >= first && !spacings[axis].is_nan())
                .then(|| std::array::from_fn(|k| if k == axis - first { spacings[axis] } else { 0.0 }))
        };
        Ok((0..rank).map(step).collect())
    }

    /// What turns the axes of `space` to RAS. A space without a name is taken as LPS, as ITK does.
    fn signs(&self) -> Result<[f64; 3], Fault> {
        let Some((key, text)) = self.get("space") else { return Ok([-1.0, -1.0, 1.0]) };
        match text.to_ascii_lowercase().as_str() {
            "right-anterior-superior" | "ras" => Ok([1.0, 1.0, 1.0]),
            "left-anterior-superior" | "las" => Ok([-1.0, 1.0, 1.0]),
            "left-posterior-superior" | "lps" => Ok([-1.0, -1.0, 1.0]),
            _ => Err(Fault::value(
                key,
                text,
                "right-anterior-superior, left-anterior-superior or left-posterior-superior",
            )),
        }
    }
}

/// The parts of `none (1,0,0) (0,1,0)`; blanks within brackets do not part.
fn vectors(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0 && c.is_whitespace()
    })
    .filter(|part| !part.is_empty())
}

fn vector(text: &str) -> Option<[f64; 3]> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    let numbers: Option<Vec<f64>> = inner.split(',').map(|part| part.trim().parse().ok()).collect();
    match numbers?[..] {
        [x, y] => Some([x, y, 0.0]),
        [x, y, z] => Some([x, y, z]),
        _ => None,
    }
}

fn datatype(text: &str) -> Option<Datatype> {
    Some(match text {
        "signed char" | "int8" | "int8_t" => Datatype::Int8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Datatype::Uint8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => Datatype::Int16,
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Datatype::Uint16,
        "int" | "signed int" | "int32" | "int32_t" => Datatype::Int32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Datatype::Uint32,
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => Datatype::Int64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => {
            Datatype::Uint64
        }
        "float" => Datatype::Float32,
        "double" => Datatype::Float64,
        _ => return None,
    })
}
