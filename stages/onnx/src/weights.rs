//! The weights of any ONNX file, by name, without running it. Reads what exporters store beside the graph (its
//! initialisers) and the file's metadata; weights that a program folded into others have no names and are not found.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::proto::StringStringEntryProto;

/// What a file says of a tensor, and its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub element: ElementType,
    /// Little-endian, C order; empty for [`ElementType::Other`].
    pub bytes: Vec<u8>,
}

/// The numbers of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElementType {
    F32,
    F16,
    Bf16,
    F64,
    /// None that a weight could be; by its number in ONNX.
    Other(i32),
}

/// Why the weights of a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    #[error("it is no ONNX model: {0}")]
    Decode(String),
    #[error("it is no ONNX model: it has no graph")]
    NoGraph,
    #[error(
        "tensor `{0}` is kept in a file beside it: join them with `onnx.save(onnx.load(FILE), FILE)` in Python"
    )]
    External(String),
    #[error("tensor `{name}` of {element} and shape {shape:?} needs {expected} bytes but has {found}")]
    Length { name: String, element: &'static str, shape: Vec<i64>, expected: String, found: usize },
}

/// Every initialiser of a model in its order, and its metadata.
pub fn read(onnx: &[u8]) -> Result<(Vec<StoredTensor>, BTreeMap<String, String>), WeightsError> {
    let model = Model::decode(onnx).map_err(|error| WeightsError::Decode(error.to_string()))?;
    let tensors = model.graph.ok_or(WeightsError::NoGraph)?.initializer;
    let tensors = tensors.into_iter().map(Tensor::stored).collect::<Result<_, _>>()?;
    let entries = model.metadata_props.into_iter();
    let metadata = entries.map(|entry| (entry.key.unwrap_or_default(), entry.value.unwrap_or_default()));
    Ok((tensors, metadata.collect()))
}

/// `ModelProto`, as far as it matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Graph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
}

/// `TensorProto`: numbers are in `raw_data`, or in the list of their type.
#[derive(Clone, PartialEq, prost::Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    data_type: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    /// Halves, each in a word of its own.
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(string, optional, tag = "8")]
    name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    raw_data: Option<Vec<u8>>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    /// 1: in another file.
    #[prost(int32, optional, tag = "14")]
    data_location: Option<i32>,
}

impl Tensor {
    fn stored(self) -> Result<StoredTensor, WeightsError> {
        let name = self.name.unwrap_or_default();
        if self.data_location == Some(1) {
            return Err(WeightsError::External(name));
        }
        let (element, size, word) = match self.data_type.unwrap_or_default() {
            1 => (ElementType::F32, 4, "float"),
            10 => (ElementType::F16, 2, "float16"),
            11 => (ElementType::F64, 8, "double"),
            16 => (ElementType::Bf16, 2, "bfloat16"),
            other => (ElementType::Other(other), 0, "other numbers"),
        };
        let halves = || self.int32_data.iter().flat_map(|half| (*half as u16).to_le_bytes()).collect();
        let bytes = match (&element, self.raw_data) {
            (ElementType::Other(_), _) => Vec::new(),
            (_, Some(raw)) => raw,
            (ElementType::F32, None) => self.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            (ElementType::F64, None) => self.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            (ElementType::F16 | ElementType::Bf16, None) => halves(),
        };
        let shape: Option<Vec<usize>> = self.dims.iter().map(|size| usize::try_from(*size).ok()).collect();
        let count = shape.as_ref().and_then(|shape| {
            shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size))?.checked_mul(size)
        });
        match shape {
            Some(shape) if count == Some(bytes.len()) => Ok(StoredTensor { name, shape, element, bytes }),
            _ => Err(WeightsError::Length {
                name,
                element: word,
                shape: self.dims,
                expected: count.map_or_else(|| "no possible number of".to_owned(), |count| count.to_string()),
                found: bytes.len(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[i64], data_type: i32) -> Tensor {
        Tensor {
            dims: dims.to_vec(),
            data_type: Some(data_type),
            name: Some("w".into()),
            ..Tensor::default()
        }
    }

    fn model(tensor: Tensor) -> Vec<u8> {
        let graph = Some(Graph { initializer: vec![tensor] });
        Model { graph, metadata_props: Vec::new() }.encode_to_vec()
    }

    #[track_caller]
    fn check(tensor: Tensor, expected: Result<&[u8], &str>) {
        let found = read(&model(tensor)).map(|(mut tensors, _)| tensors.remove(0).bytes);
        assert_eq!(
            found.map_err(|error| error.to_string()),
            expected.map(<[u8]>::to_vec).map_err(str::to_owned)
        );
    }

    #[test]
    fn numbers_are_read_wherever_an_exporter_put_them() {
        let raw = Some(vec![0, 0, 128, 63]);
        check(Tensor { raw_data: raw, ..tensor(&[1], 1) }, Ok(&[0, 0, 128, 63]));
        check(Tensor { float_data: vec![1.0], ..tensor(&[], 1) }, Ok(&[0, 0, 128, 63]));
        check(Tensor { double_data: vec![1.0], ..tensor(&[1], 11) }, Ok(&[0, 0, 0, 0, 0, 0, 240, 63]));
        check(Tensor { int32_data: vec![0x3c00, 0xbc00], ..tensor(&[2, 1], 10) }, Ok(&[0, 60, 0, 188]));
        check(Tensor { raw_data: Some(vec![1; 8]), ..tensor(&[0], 7) }, Ok(&[]));
    }

    #[test]
    fn a_tensor_that_lies_is_refused() {
        check(
            Tensor { raw_data: Some(vec![0; 4]), ..tensor(&[2], 1) },
            Err("tensor `w` of float and shape [2] needs 8 bytes but has 4"),
        );
        check(
            tensor(&[1 << 40, 1 << 40], 1),
            Err(
                "tensor `w` of float and shape [1099511627776, 1099511627776] needs no possible number of bytes but \
                 has 0",
            ),
        );
        check(
            tensor(&[-1], 1),
            Err("tensor `w` of float and shape [-1] needs no possible number of bytes but has 0"),
        );
        check(
            Tensor { data_location: Some(1), ..tensor(&[1], 1) },
            Err(
                "tensor `w` is kept in a file beside it: join them with `onnx.save(onnx.load(FILE), FILE)` in Python",
            ),
        );
        assert_eq!(read(b""), Err(WeightsError::NoGraph));
        assert!(matches!(read(b"PK\x03\x04 a zip"), Err(WeightsError::Decode(_))));
    }

    #[test]
    fn a_file_that_was_cut_off_is_an_error_or_an_empty_list_and_never_a_panic() {
        let whole = model(Tensor { raw_data: Some(vec![7; 400]), ..tensor(&[100], 1) });
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
