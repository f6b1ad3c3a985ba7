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

/// The bytes of whole voxels with what it takes to read them; for formats that do not scale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) datatype: Datatype,
    pub(crate) big_endian: bool,
}

/// Runs a block with a type alias for what a [`Datatype`] stores.
macro_rules! with_type {
    ($datatype:expr, $alias:ident => $body:block) => {
        match $datatype {
            $crate::stored::Datatype::Uint8 => {
                type $alias = u8;
                $body
            }
            $crate::stored::Datatype::Int8 => {
                type $alias = i8;
                $body
            }
            $crate::stored::Datatype::Uint16 => {
                type $alias = u16;
                $body
            }
            $crate::stored::Datatype::Int16 => {
                type $alias = i16;
                $body
            }
            $crate::stored::Datatype::Uint32 => {
                type $alias = u32;
                $body
            }
            $crate::stored::Datatype::Int32 => {
                type $alias = i32;
                $body
            }
            $crate::stored::Datatype::Uint64 => {
                type $alias = u64;
                $body
            }
            $crate::stored::Datatype::Int64 => {
                type $alias = i64;
                $body
            }
            $crate::stored::Datatype::Float32 => {
                type $alias = f32;
                $body
            }
            $crate::stored::Datatype::Float64 => {
                type $alias = f64;
                $body
            }
        }
    };
}
pub(crate) use with_type;

impl Stored<'_> {
    pub(crate) fn to_f32(self) -> Result<Vec<f32>, ValueFault> {
        with_type!(self.datatype, T => {
            let cells = self.bytes.chunks_exact(size_of::<T>());
            if self.big_endian { floats(cells.map(T::big), None) } else { floats(cells.map(T::little), None) }
        })
    }
}

/// Scaled in `f64`, then rounded to `f32` once.
pub(crate) fn floats<T: Number>(
    stored: impl ExactSizeIterator<Item = T>,
    scaling: Option<Scaling>,
) -> Result<Vec<f32>, ValueFault> {
    let mut values = reserve(stored.len())?;
    match scaling {
        None => values.extend(stored.map(Number::narrow)),
        Some(s) => values.extend(stored.map(|value| (value.wide() * s.slope + s.intercept) as f32)),
    }
    Ok(values)
}

/// Whole numbers from 0 to 255 after scaling; `shape` is z, y, x and only serves to name the place of the first value
/// that is none.
pub(crate) fn labels<T: Number>(
    stored: impl ExactSizeIterator<Item = T>,
    scaling: Option<Scaling>,
    [_, y, x]: [usize; 3],
) -> Result<Vec<u8>, ValueFault> {
    let Scaling { slope, intercept } = scaling.unwrap_or(Scaling { slope: 1.0, intercept: 0.0 });
    let mut found = reserve(stored.len())?;
    let (mut first, mut count) = (None, 0);
    for stored in stored {
        let value = stored.wide() * slope + intercept;
        let nearest = value.round();
        // Written so that NaN fails.
        let is_label = (0.0..=255.0).contains(&nearest) && (value - nearest).abs() <= LABEL_TOLERANCE;
        if !is_label {
            count += 1;
            first.get_or_insert((found.len(), value));
        }
        found.push(nearest as u8);
    }
    match first {
        None => Ok(found),
        Some((i, value)) => Err(ValueFault::LabelValue { count, value, at: [i / (x * y), i / x % y, i % x] }),
    }
}

fn reserve<T>(length: usize) -> Result<Vec<T>, ValueFault> {
    let mut values = Vec::new();
    let bytes = length.saturating_mul(size_of::<T>());
    values.try_reserve_exact(length).map_err(|_| ValueFault::Memory { bytes })?;
    Ok(values)
}

/// A type that voxels are stored as. `cell` has exactly its size.
pub(crate) trait Number: Copy {
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
