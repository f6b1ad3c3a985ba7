//! Parameters as plain data and as safetensors bytes, in the names and the layout of PyTorch.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde_json::Value;

use crate::NnError;
use crate::network::Network;

/// One named array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// All parameters of a model, in the order of its network. Layout: [`crate::network::Role`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Parameters {
    entries: Vec<Parameter>,
}

impl Parameters {
    pub(crate) fn new(entries: Vec<Parameter>) -> Self {
        Self { entries }
    }

    /// The same parameters in the order of `network`; files list them by name.
    pub(crate) fn in_order_of(mut self, network: &Network) -> Self {
        self.entries.sort_by_key(|entry| network.parameters.iter().position(|spec| spec.name == entry.name));
        self
    }

    /// All parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.entries.iter()
    }

    /// Shape and row-major values of one parameter.
    pub fn get(&self, name: &str) -> Option<(&[usize], &[f32])> {
        let found = self.entries.iter().find(|entry| entry.name == name)?;
        Some((&found.shape, &found.values))
    }

    /// The parameters that `rename` names; others are left out. For files that hold more, or under other names.
    #[must_use]
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let entries = self.entries.iter().filter_map(|entry| {
            let name = rename(&entry.name)?;
            Some(Parameter { name, shape: entry.shape.clone(), values: entry.values.clone() })
        });
        Self { entries: entries.collect() }
    }

    /// The values in the order of `network`.
    ///
    /// # Errors
    /// [`NnError::Parameter`] for a name that is missing or not the network's, [`NnError::Shape`] for a shape.
    pub(crate) fn ordered_for(&self, network: &Network) -> Result<Vec<Vec<f32>>, NnError> {
        let mut by_name: BTreeMap<&str, &Parameter> =
            self.entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let mut ordered = Vec::with_capacity(network.parameters.len());
        for spec in &network.parameters {
            let missing = || NnError::Parameter { name: spec.name.clone(), problem: "is missing".to_owned() };
            let entry = by_name.remove(spec.name.as_str()).ok_or_else(missing)?;
            if entry.shape != spec.shape || entry.values.len() != spec.len() {
                let (what, found, expected) =
                    (format!("parameter `{}`", spec.name), entry.shape.clone(), spec.shape.clone());
                return Err(NnError::Shape { what, found, expected });
            }
            ordered.push(entry.values.clone());
        }
        match by_name.into_keys().next() {
            None => Ok(ordered),
            Some(name) => Err(NnError::Parameter {
                name: name.to_owned(),
                problem: "does not belong to this network".to_owned(),
            }),
        }
    }

    /// The bytes of a safetensors file, all tensors F32. Equal parameters give equal bytes.
    pub fn to_safetensors(&self) -> Vec<u8> {
        let tensors = self.entries.iter().map(|entry| (entry.name.clone(), &*entry.shape, &*entry.values));
        write_tensors(tensors.collect(), None)
    }

    /// Reads what [`Parameters::to_safetensors`] or PyTorch wrote; the order is that of the names.
    ///
    /// # Errors
    /// [`NnError::Format`] when the bytes are no safetensors file or a tensor is not F32.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, NnError> {
        let (tensors, _) = read_tensors(bytes, "safetensors file")?;
        let entries = tensors.into_iter().map(|(name, (shape, values))| Parameter { name, shape, values });
        Ok(Self { entries: entries.collect() })
    }

    /// Writes [`Parameters::to_safetensors`] to `path`.
    ///
    /// # Errors
    /// [`NnError::Io`].
    pub fn save_safetensors(&self, path: &Path) -> Result<(), NnError> {
        let io = |source| NnError::Io { action: "write", path: path.to_owned(), source };
        std::fs::write(path, self.to_safetensors()).map_err(io)
    }

    /// Reads `path` as [`Parameters::from_safetensors`] does.
    ///
    /// # Errors
    /// [`NnError::Io`], [`NnError::Format`].
    pub fn load_safetensors(path: &Path) -> Result<Self, NnError> {
        let io = |source| NnError::Io { action: "read", path: path.to_owned(), source };
        Self::from_safetensors(&std::fs::read(path).map_err(io)?)
    }
}

/// Tensors by name: shape and values.
pub(crate) type NamedTensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Serialises F32 tensors and at most one metadata entry (more would be written in random order).
pub(crate) fn write_tensors(
    tensors: Vec<(String, &[usize], &[f32])>,
    metadata: Option<(&str, String)>,
) -> Vec<u8> {
    let encoded: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, values)| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name, shape.to_vec(), bytes)
        })
        .collect();
    let views = encoded.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("lengths follow from the shapes");
        (name.as_str(), view)
    });
    let metadata = metadata.map(|(key, value)| [(key.to_owned(), value)].into());
    safetensors::serialize(views, &metadata).expect("views that were made can be written")
}

/// Reads F32 tensors and the metadata.
pub(crate) fn read_tensors(
    bytes: &[u8],
    what: &str,
) -> Result<(NamedTensors, BTreeMap<String, String>), NnError> {
    let format = |problem: String| NnError::Format { what: what.to_owned(), problem };
    let file = read_views(bytes, what)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| format(words(&error)))?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(format(format!("tensor `{name}` is {:?}, expected F32", view.dtype())));
        }
        let values = view.data().as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        tensors.insert(name, (view.shape().to_vec(), values));
    }
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((tensors, metadata))
}

/// Length of the header's length.
const PREFIX: usize = 8;

/// The tensors of a safetensors file, checked against its length, and not copied.
pub(crate) fn read_views<'a>(bytes: &'a [u8], what: &str) -> Result<SafeTensors<'a>, NnError> {
    let format = |problem: String| NnError::Format { what: what.to_owned(), problem };
    check_ends(bytes).map_err(format)?;
    SafeTensors::deserialize(bytes).map_err(|error| format(words(&error)))
}

/// Checks that no tensor claims to end beyond the file: the crate adds up what a header says before it compares.
fn check_ends(bytes: &[u8]) -> Result<(), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(format!("it has {} bytes and no header", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let Some((header, data)) = header else {
        return Err(format!(
            "its header says to have {length} bytes, of which the file holds {}",
            rest.len()
        ));
    };
    let entries: BTreeMap<String, Value> =
        serde_json::from_slice(header).map_err(|error| format!("its header is no JSON object: {error}"))?;
    for (name, entry) in entries.iter().filter(|(name, _)| *name != "__metadata__") {
        let end = entry["data_offsets"][1].as_u64();
        if let Some(end) = end.filter(|end| *end > data.len() as u64) {
            let held = data.len();
            return Err(format!(
                "tensor `{name}` ends at byte {end} of the data, of which the file holds {held}"
            ));
        }
    }
    Ok(())
}

/// What the crate found, in words.
fn words(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor `{name}` does not begin where the one before it ends")
        }
        SafeTensorError::TensorInvalidInfo => {
            "a tensor has another number of bytes than its shape and type need".to_owned()
        }
        SafeTensorError::ValidationOverflow => "the shape of a tensor is beyond all bounds".to_owned(),
        SafeTensorError::MetadataIncompleteBuffer => {
            "its tensors do not fill the file: it was cut off, or something was added".to_owned()
        }
        SafeTensorError::HeaderTooLarge => "its header is larger than 100 MB".to_owned(),
        SafeTensorError::InvalidHeaderDeserialization => {
            "its header does not say type, shape and place of each tensor".to_owned()
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header and so many bytes of data.
    fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        let error = Parameters::from_safetensors(bytes).unwrap_err().to_string();
        assert_eq!(error, format!("safetensors file is not readable: {expected}"));
    }

    #[test]
    fn a_file_that_lies_is_refused_with_what_it_lies_about() {
        let one = |shape: &str, offsets: &str, dtype: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let good = file(&one("[2]", "[0,8]", "F32"), 8);
        assert_eq!(Parameters::from_safetensors(&good).unwrap().get("a"), Some((&[2][..], &[0.0, 0.0][..])));
        check(&good[..5], "it has 5 bytes and no header");
        let held = good.len() - 8;
        let with_length = |length: u64| [&length.to_le_bytes(), &good[8..]].concat();
        for length in [u64::MAX, u64::MAX - 8, 1 << 40, held as u64 + 1] {
            let expected = format!("its header says to have {length} bytes, of which the file holds {held}");
            check(&with_length(length), &expected);
        }
        check(&good[..good.len() - 1], "tensor `a` ends at byte 8 of the data, of which the file holds 7");
        let longer = [&*good, &[0]].concat();
        check(&longer, "its tensors do not fill the file: it was cut off, or something was added");
        let cases = [
            (one("[2]", "[4,12]", "F32"), 12, "tensor `a` does not begin where the one before it ends"),
            (one("[2]", "[8,0]", "F32"), 8, "tensor `a` does not begin where the one before it ends"),
            (
                one("[3]", "[0,8]", "F32"),
                8,
                "a tensor has another number of bytes than its shape and type need",
            ),
            (one("[4294967296,4294967296]", "[0,8]", "F32"), 8, "the shape of a tensor is beyond all bounds"),
            (
                one("[2]", "[0,8]", "F64"),
                8,
                "a tensor has another number of bytes than its shape and type need",
            ),
            (one("[1]", "[0,8]", "I64"), 8, "tensor `a` is I64, expected F32"),
            (one("[2]", "[0,8]", "F33"), 8, "its header does not say type, shape and place of each tensor"),
            (one("[-2]", "[0,8]", "F32"), 8, "its header does not say type, shape and place of each tensor"),
            // Their sum with the header is beyond what a word can hold.
            (
                one("[18446744073709551615]", "[0,18446744073709551615]", "U8"),
                8,
                "tensor `a` ends at byte 18446744073709551615 of the data, of which the file holds 8",
            ),
        ];
        for (header, data, expected) in cases {
            check(&file(&header, data), expected);
        }
        let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        check(&file(overlap, 12), "tensor `b` does not begin where the one before it ends");
        check(
            &file("[]", 0),
            "its header is no JSON object: invalid type: sequence, expected a map at line 1 column 0",
        );
        check(&file("{}", 4), "its tensors do not fill the file: it was cut off, or something was added");
    }
}
