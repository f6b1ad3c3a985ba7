//! Voxels as files store them: type, byte order and scaling, and the way to `f32` images and `u8` label maps.

use std::fmt;

use thiserror::Error;

/// How far from a whole number a label value may lie: the rounding error of a label up to 255 that went through
/// `f32` scaling is below 2e-5.
pub const LABEL_TOLERANCE: f64 = 1e-4;

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
        match self {
            Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 => 2,
            Self::Uint32 | Self::Int32 | Self::Float32 => 4,
            Self::Uint64 | Self::Int64 | Self::Float64 => 8,
        }
    }

    /// Whether every stored value is a whole number.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::Float32 | Self::Float64)
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Linear scaling of stored values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Multiplies the stored value; finite and not 0.
    pub slope: f64,
    /// Is added afterwards; finite.
    pub intercept: f64,
}

/// Stored values that cannot become what was asked for.
#[derive(Debug, Error)]
pub enum ValueFault {
    /// The allocator refused.
    #[error("not enough memory for {bytes} bytes of voxels")]
    Memory { bytes: usize },
    /// Label values that are not labels.
    #[error(
        "{count} label values are not whole numbers from 0 to 255, the first is {value} at z, y, x = {at:?}"
    )]
    LabelValue { count: usize, value: f64, at: [usize; 3] },
}

/// The bytes of whole voxels with what it takes to read them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) datatype: Datatype,
    pub(crate) big_endian: bool,
    pub(crate) scaling: Option<Scaling>,
}

impl Stored<'_> {
    /// Scaled in `f64`, then rounded to `f32` once.
    pub(crate) fn to_f32(self) -> Result<Vec<f32>, ValueFault> {
        match self.datatype {
            Datatype::Uint8 => self.floats::<u8>(),
            Datatype::Int8 => self.floats::<i8>(),
            Datatype::Uint16 => self.floats::<u16>(),
            Datatype::Int16 => self.floats::<i16>(),
            Datatype::Uint32 => self.floats::<u32>(),
            Datatype::Int32 => self.floats::<i32>(),
            Datatype::Uint64 => self.floats::<u64>(),
            Datatype::Int64 => self.floats::<i64>(),
            Datatype::Float32 => self.floats::<f32>(),
            Datatype::Float64 => self.floats::<f64>(),
        }
    }

    /// Whole numbers from 0 to 255 after scaling; `shape` is z, y, x and only serves to name the place of the first
    /// value that is none.
    pub(crate) fn to_labels(self, shape: [usize; 3]) -> Result<Vec<u8>, ValueFault> {
        match self.datatype {
            Datatype::Uint8 if self.scaling.is_none() => Ok(self.bytes.to_vec()),
            Datatype::Uint8 => self.labels::<u8>(shape),
            Datatype::Int8 => self.labels::<i8>(shape),
            Datatype::Uint16 => self.labels::<u16>(shape),
            Datatype::Int16 => self.labels::<i16>(shape),
            Datatype::Uint32 => self.labels::<u32>(shape),
            Datatype::Int32 => self.labels::<i32>(shape),
            Datatype::Uint64 => self.labels::<u64>(shape),
            Datatype::Int64 => self.labels::<i64>(shape),
            Datatype::Float32 => self.labels::<f32>(shape),
            Datatype::Float64 => self.labels::<f64>(shape),
        }
    }

    fn floats<T: Number>(self) -> Result<Vec<f32>, ValueFault> {
        let mut values = reserve(self.bytes.len() / size_of::<T>())?;
        let cells = self.bytes.chunks_exact(size_of::<T>());
        match (self.scaling, self.big_endian) {
            (None, false) => values.extend(cells.map(|cell| T::little(cell).narrow())),
            (None, true) => values.extend(cells.map(|cell| T::big(cell).narrow())),
            (Some(s), false) => {
                values.extend(cells.map(|c| (T::little(c).wide() * s.slope + s.intercept) as f32));
            }
            (Some(s), true) => {
                values.extend(cells.map(|c| (T::big(c).wide() * s.slope + s.intercept) as f32));
            }
        }
        Ok(values)
    }

    fn labels<T: Number>(self, shape: [usize; 3]) -> Result<Vec<u8>, ValueFault> {
        let scaling = self.scaling.unwrap_or(Scaling { slope: 1.0, intercept: 0.0 });
        let mut labels = Labels::reserve(self.bytes.len() / size_of::<T>())?;
        for cell in self.bytes.chunks_exact(size_of::<T>()) {
            let stored = if self.big_endian { T::big(cell) } else { T::little(cell) };
            labels.push(stored.wide() * scaling.slope + scaling.intercept);
        }
        labels.finish(shape)
    }
}

fn reserve<T>(length: usize) -> Result<Vec<T>, ValueFault> {
    let mut values = Vec::new();
    let bytes = length.saturating_mul(size_of::<T>());
    values.try_reserve_exact(length).map_err(|_| ValueFault::Memory { bytes })?;
    Ok(values)
}

/// Labels from values that are in memory already. See [`Stored::to_labels`].
pub(crate) fn labels_from_f32(values: &[f32], shape: [usize; 3]) -> Result<Vec<u8>, ValueFault> {
    let mut labels = Labels::reserve(values.len())?;
    for &value in values {
        labels.push(f64::from(value));
    }
    labels.finish(shape)
}

/// Labels as they come, with the first value that is none.
struct Labels {
    found: Vec<u8>,
    first: Option<(usize, f64)>,
    count: usize,
}

impl Labels {
    fn reserve(length: usize) -> Result<Self, ValueFault> {
        Ok(Self { found: reserve(length)?, first: None, count: 0 })
    }

    fn push(&mut self, value: f64) {
        let nearest = value.round();
        // Written so that NaN fails.
        let is_label = (0.0..=255.0).contains(&nearest) && (value - nearest).abs() <= LABEL_TOLERANCE;
        if !is_label {
            self.count += 1;
            self.first.get_or_insert((self.found.len(), value));
        }
        self.found.push(nearest as u8);
    }

    fn finish(self, [_, y, x]: [usize; 3]) -> Result<Vec<u8>, ValueFault> {
        let Self { found, first, count } = self;
        let Some((i, value)) = first else { return Ok(found) };
        Err(ValueFault::LabelValue { count, value, at: [i / (x * y), i / x % y, i % x] })
    }
}

/// A type that voxels are stored as. `cell` has exactly its size.
trait Number: Copy {
    fn little(cell: &[u8]) -> Self;
    fn big(cell: &[u8]) -> Self;
    fn wide(self) -> f64;
    fn narrow(self) -> f32;
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn little(cell: &[u8]) -> Self {
                Self::from_le_bytes(cell.try_into().expect("chunks have the size of the type"))
            }

            fn big(cell: &[u8]) -> Self {
                Self::from_be_bytes(cell.try_into().expect("chunks have the size of the type"))
            }

            fn wide(self) -> f64 {
                self as f64
            }

            fn narrow(self) -> f32 {
                self as f32
            }
        }
    )*};
}

number!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);
