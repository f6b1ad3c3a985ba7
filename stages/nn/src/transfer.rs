//! Start values out of files of weights: which tensor of a file becomes which parameter of a network, and what became
//! of all others. Matches names and shapes; changes no value beyond rounding it to single precision.

use std::collections::{BTreeMap, BTreeSet};

use crate::NnError;
use crate::freeze::is_below;
use crate::network::{Network, ParameterSpec};
use crate::weights::{Parameter, Parameters, read_views};

/// Numbers of a tensor as they stand in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    F32,
    F16,
    Bf16,
    F64,
    /// No floating-point number that a weight could be, by its name: `I64`.
    Other(&'a str),
}

/// The tensors of a file, by name, as any program may have written them.
#[derive(Clone, Debug, Default)]
pub struct Tensors {
    by_name: BTreeMap<String, Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    shape: Vec<usize>,
    /// The name of the element type where it is none of a weight.
    values: Result<Vec<f32>, String>,
}

/// What became of a parameter of the network, or of a tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The parameter begins with the values of the tensor.
    Taken,
    /// The file has no tensor of that name.
    Missing,
    /// The tensor has another shape.
    Shape,
    /// The tensor holds no floating-point numbers.
    Type(String),
    /// The tensor holds a number that is NaN or infinite.
    NotFinite,
    /// The network has no parameter for the tensor.
    Unused,
    /// The same, and the tensor holds no weights: a counter.
    NoWeight,
}

/// One line of the account of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRow {
    /// Name and shape in the network.
    pub parameter: Option<(String, Vec<usize>)>,
    /// Name and shape in the file.
    pub tensor: Option<(String, Vec<usize>)>,
    pub fate: Fate,
}

/// What a network takes over from a file.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Under the names of the network.
    pub start: Parameters,
    /// Every parameter in the order of the network, then every tensor that none of them wanted.
    pub rows: Vec<TransferRow>,
}

impl Tensors {
    /// Reads a safetensors file; element types that are no weights are kept as such.
    ///
    /// # Errors
    /// [`NnError::Format`] for bytes that are none, or that claim what they do not hold.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, NnError> {
        let mut tensors = Self::default();
        for (name, view) in read_views(bytes, "safetensors file")?.tensors() {
            use safetensors::Dtype;
            let other = format!("{:?}", view.dtype());
            let element = match view.dtype() {
                Dtype::F32 => Element::F32,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::Bf16,
                Dtype::F64 => Element::F64,
                _ => Element::Other(&other),
            };
            tensors.insert(name, view.shape().to_vec(), element, view.data())?;
        }
        Ok(tensors)
    }

    /// Adds a tensor; `bytes` hold as many elements as the shape says.
    ///
    /// # Errors
    /// [`NnError::Format`] when they do not.
    pub fn insert(
        &mut self,
        name: String,
        shape: Vec<usize>,
        element: Element<'_>,
        bytes: &[u8],
    ) -> Result<(), NnError> {
        let values = match element {
            Element::Other(name) => Err(name.to_owned()),
            Element::F32 => Ok(numbers(bytes, f32::from_le_bytes)),
            Element::F16 => Ok(numbers(bytes, |word| half(u16::from_le_bytes(word)))),
            Element::Bf16 => {
                Ok(numbers(bytes, |word| f32::from_bits(u32::from(u16::from_le_bytes(word)) << 16)))
            }
            Element::F64 => Ok(numbers(bytes, |word| f64::from_le_bytes(word) as f32)),
        };
        let count = shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        if let Ok(values) = &values
            && count != Some(values.len())
        {
            let problem = format!("its shape is {shape:?} but it has {} numbers", values.len());
            return Err(NnError::Format { what: format!("tensor `{name}`"), problem });
        }
        self.by_name.insert(name, Stored { shape, values });
        Ok(())
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Finds a tensor for each parameter of `network`. `names`: how parameters of the network begin → how their tensors
    /// do in the file; the longest beginning counts. A first word that all tensors share and the network does not know
    /// (`module.`) is left out.
    ///
    /// # Errors
    /// [`NnError::Config`] for a name in `names` that the network or the file does not have.
    pub fn transfer(&self, network: &Network, names: &BTreeMap<String, String>) -> Result<Transfer, NnError> {
        let shared = self.shared_words(network, names);
        self.check_names(network, names, &shared)?;
        let mut transfer = Transfer { start: Parameters::default(), rows: Vec::new() };
        let (mut start, mut wanted) = (Vec::new(), BTreeSet::new());
        for spec in &network.parameters {
            let name = format!("{shared}{}", renamed(&spec.name, names));
            let found = self.by_name.get_key_value(&name);
            let fate = found.map_or(Fate::Missing, |(_, stored)| stored.fate(spec, network));
            if let (Fate::Taken, Some((_, Stored { values: Ok(values), .. }))) = (&fate, found) {
                let values = values.clone();
                start.push(Parameter { name: spec.name.clone(), shape: spec.shape.clone(), values });
            }
            transfer.rows.push(TransferRow {
                parameter: Some((spec.name.clone(), spec.shape.clone())),
                tensor: found.map(|(name, stored)| (name.clone(), stored.shape.clone())),
                fate,
            });
            wanted.insert(name);
        }
        transfer.start = Parameters::new(start);
        for (name, stored) in self.by_name.iter().filter(|(name, _)| !wanted.contains(*name)) {
            let fate = if stored.values.is_ok() { Fate::Unused } else { Fate::NoWeight };
            let tensor = Some((name.clone(), stored.shape.clone()));
            transfer.rows.push(TransferRow { parameter: None, tensor, fate });
        }
        Ok(transfer)
    }

    /// The first words that all tensors share, as `module.`, as far as neither the network nor `names` know them.
    fn shared_words(&self, network: &Network, names: &BTreeMap<String, String>) -> String {
        let known = |word: &str| {
            let starts = |name: &str| name.split('.').next() == Some(word);
            network.parameters.iter().any(|spec| starts(&spec.name))
                || names.values().any(|name| starts(name))
        };
        let mut shared = String::new();
        let Some(first) = self.by_name.keys().next() else { return shared };
        while let Some((word, _)) = first[shared.len()..].split_once('.') {
            let longer = format!("{shared}{word}.");
            if known(word) || !self.by_name.keys().all(|name| name.starts_with(&longer)) {
                break;
            }
            shared = longer;
        }
        shared
    }

    fn check_names(
        &self,
        network: &Network,
        names: &BTreeMap<String, String>,
        shared: &str,
    ) -> Result<(), NnError> {
        let refuse = |value: String, rule: String| Err(NnError::Config { name: "names", value, rule });
        for (ours, theirs) in names {
            if !network.has_part(ours) {
                let rule = format!("no parameter lies below that name; the network has {}", network.parts());
                return refuse(format!("`{ours}`"), rule);
            }
            if !self.by_name.keys().any(|name| is_below(name, &format!("{shared}{theirs}"))) {
                let mut listed: Vec<&str> = self.by_name.keys().map(String::as_str).take(5).collect();
                if self.by_name.len() > listed.len() {
                    listed.push("…");
                }
                let rule =
                    format!("no tensor of the file lies below `{theirs}`; it has {}", listed.join(", "));
                return refuse(format!("`{ours}`: `{theirs}`"), rule);
            }
        }
        Ok(())
    }
}

impl Transfer {
    /// Parameters that begin with values of the file.
    pub fn taken(&self) -> usize {
        self.rows.iter().filter(|row| row.fate == Fate::Taken).count()
    }

    /// What does not fit: parameters that begin anew, and weights that are left over.
    pub fn misfits(&self) -> impl Iterator<Item = &TransferRow> {
        self.rows.iter().filter(|row| !matches!(row.fate, Fate::Taken | Fate::NoWeight))
    }
}

impl std::fmt::Display for TransferRow {
    /// A sentence that names the parameter, the tensor and both shapes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = |end: &Option<(String, Vec<usize>)>| {
            end.as_ref().map_or_else(String::new, |(name, shape)| format!("`{name}` {shape:?}"))
        };
        let (ours, theirs) = (said(&self.parameter), said(&self.tensor));
        match &self.fate {
            Fate::Taken => write!(f, "{ours} is {theirs} of the file"),
            Fate::Missing => write!(f, "{ours} is not in the file"),
            Fate::Shape => write!(f, "{ours} is {theirs} in the file: another shape"),
            Fate::Type(name) => write!(f, "{ours} is {theirs} in the file, of {name}: no weights"),
            Fate::NotFinite => write!(f, "{ours} is {theirs} in the file, which holds NaN or infinity"),
            Fate::Unused => write!(f, "{theirs} of the file is no parameter of the network"),
            Fate::NoWeight => write!(f, "{theirs} of the file holds no weights"),
        }
    }
}

impl Stored {
    fn fate(&self, spec: &ParameterSpec, network: &Network) -> Fate {
        // A linear model keeps its weights as an image, other programs as a row: the same values in the same order.
        let row = network.fixed_size.is_some()
            && self.shape.len() == 2
            && self.shape[0] == spec.shape[0]
            && self.shape.iter().product::<usize>() == spec.len();
        match &self.values {
            Err(name) => Fate::Type(name.clone()),
            Ok(_) if self.shape != spec.shape && !row => Fate::Shape,
            Ok(values) if values.iter().all(|value| value.is_finite()) => Fate::Taken,
            Ok(_) => Fate::NotFinite,
        }
    }
}

/// What a parameter is called in the file.
fn renamed(name: &str, names: &BTreeMap<String, String>) -> String {
    let longest = names.iter().filter(|(ours, _)| is_below(name, ours)).max_by_key(|(ours, _)| ours.len());
    longest.map_or_else(|| name.to_owned(), |(ours, theirs)| format!("{theirs}{}", &name[ours.len()..]))
}

/// Every whole element of `bytes`.
fn numbers<const SIZE: usize>(bytes: &[u8], number: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<SIZE>().0.iter().map(|word| number(*word)).collect()
}

/// The value of an IEEE 754 half, exactly.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    match exponent {
        0 => sign * fraction * 2.0_f32.powi(-14),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction) * 2.0_f32.powi(exponent - 15),
    }
}
