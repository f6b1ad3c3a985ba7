//! Parameters as plain data and as safetensors bytes, in the names and the layout of PyTorch.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

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
    let file = SafeTensors::deserialize(bytes).map_err(|error| format(error.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| format(error.to_string()))?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(format(format!("tensor `{name}` is {:?}, expected F32", view.dtype())));
        }
        let words = view.data().chunks_exact(4);
        let values = words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
        tensors.insert(name, (view.shape().to_vec(), values));
    }
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((tensors, metadata))
}
