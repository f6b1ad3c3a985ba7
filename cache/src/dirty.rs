//! Why a stage ran: the difference of two manifests as values, and each as a sentence.

use crate::digest::Digest;
use crate::manifest::{ArtifactType, Manifest, split_element};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// One reason for which a stage had to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DirtyReason {
    /// No run that gave a result of this stage is on record.
    NeverRan,
    /// The user asked for it.
    Forced,
    /// The result is on record, but not all of its objects are in the cache.
    OutputsMissing,
    /// The record of the result is damaged.
    RecordCorrupt {
        /// How.
        detail: String,
    },
    /// The stage is of another kind.
    KindChanged { old: String, new: String },
    /// The code of the kind has another version.
    VersionChanged { old: u32, new: u32 },
    /// A param has another value. `path` joins the names of nested maps by dots.
    ParamChanged { path: String, old: Value, new: Value },
    /// The kind has a param that it did not have.
    ParamAdded { path: String, new: Value },
    /// A param is gone.
    ParamRemoved { path: String, old: Value },
    /// An input has other content. `label` tells the element of a many-port.
    InputChanged { port: String, label: Option<String>, old: Digest, new: Digest },
    /// An input was added.
    InputAdded { port: String, label: Option<String>, new: Digest },
    /// An input was removed.
    InputRemoved { port: String, label: Option<String>, old: Digest },
    /// The elements of a many-port are the same in another order.
    InputOrderChanged { port: String },
    /// External files changed: the digests of the two listings.
    ExternalChanged { port: String, old: Digest, new: Digest },
    /// External files are read that were not.
    ExternalAdded { port: String, new: Digest },
    /// External files are no longer read.
    ExternalRemoved { port: String, old: Digest },
    /// A port has another artifact type or format.
    FormatChanged { port: String, old: ArtifactType, new: ArtifactType },
    /// An output port was added.
    OutputAdded { port: String },
    /// An output port was removed.
    OutputRemoved { port: String },
    /// The seed is another, or is used for the first or no longer.
    SeedChanged { old: Option<u64>, new: Option<u64> },
    /// The device class is another.
    DeviceChanged { old: Option<String>, new: Option<String> },
    /// A declared environment variable has another value, or is declared for the first or no longer.
    EnvironmentChanged { name: String, old: Option<String>, new: Option<String> },
}

impl Manifest {
    /// Why the key differs from that of `previous`; empty exactly when the manifests are equal.
    pub fn diff(&self, previous: &Manifest) -> Vec<DirtyReason> {
        let mut reasons = Vec::new();
        if self.kind != previous.kind {
            reasons.push(DirtyReason::KindChanged { old: previous.kind.clone(), new: self.kind.clone() });
        }
        if self.version != previous.version {
            reasons.push(DirtyReason::VersionChanged { old: previous.version, new: self.version });
        }
        diff_params("", &previous.params, &self.params, &mut reasons);
        diff_inputs(previous, self, &mut reasons);
        diff_external(previous, self, &mut reasons);
        diff_outputs(previous, self, &mut reasons);
        if self.seed != previous.seed {
            reasons.push(DirtyReason::SeedChanged { old: previous.seed, new: self.seed });
        }
        if self.device != previous.device {
            reasons
                .push(DirtyReason::DeviceChanged { old: previous.device.clone(), new: self.device.clone() });
        }
        for (name, old, new) in paired(&previous.environment, &self.environment) {
            if old != new {
                let [old, new] = [old, new].map(|value| value.cloned().flatten());
                reasons.push(DirtyReason::EnvironmentChanged { name: name.clone(), old, new });
            }
        }
        reasons
    }
}

/// The keys of both maps in order, each with its value in either.
fn paired<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let mut names: Vec<&K> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| (name, old.get(name), new.get(name)))
}

/// Maps are compared by name at every depth, lists as a whole.
fn diff_params(path: &str, old: &Value, new: &Value, reasons: &mut Vec<DirtyReason>) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        if old != new {
            let path = path.to_owned();
            reasons.push(DirtyReason::ParamChanged { path, old: old.clone(), new: new.clone() });
        }
        return;
    };
    let [old, new] = [old, new].map(|map| map.iter().collect::<BTreeMap<_, _>>());
    for (name, old, new) in paired(&old, &new) {
        let path = if path.is_empty() { (*name).clone() } else { format!("{path}.{name}") };
        match (old, new) {
            (Some(old), Some(new)) => diff_params(&path, old, new, reasons),
            (None, Some(new)) => reasons.push(DirtyReason::ParamAdded { path, new: (*new).clone() }),
            (Some(old), None) => reasons.push(DirtyReason::ParamRemoved { path, old: (*old).clone() }),
            (None, None) => {}
        }
    }
}

/// The elements of one port: (label, how often it came before) → (index, name in the manifest).
type Elements<'a> = BTreeMap<(Option<&'a str>, usize), (usize, &'a str)>;

/// Elements are matched by port and label, so one added in front is not a change of all the others.
fn diff_inputs(previous: &Manifest, current: &Manifest, reasons: &mut Vec<DirtyReason>) {
    let (old_ports, new_ports) = (by_port(previous), by_port(current));
    let none = Elements::new();
    for (port, old, new) in paired(&old_ports, &new_ports) {
        let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
        let before = reasons.len();
        for ((label, _), old, new) in paired(old, new) {
            let (port, label) = ((*port).to_owned(), label.map(str::to_owned));
            let old = old.map(|(_, name)| &previous.inputs[*name]);
            let new = new.map(|(_, name)| &current.inputs[*name]);
            match (old, new) {
                (Some(old), Some(new)) => {
                    if old.digest != new.digest {
                        let (old, new) = (old.digest, new.digest);
                        reasons.push(DirtyReason::InputChanged { port: port.clone(), label, old, new });
                    }
                    if old.artifact != new.artifact {
                        let (old, new) = (old.artifact.clone(), new.artifact.clone());
                        reasons.push(DirtyReason::FormatChanged { port, old, new });
                    }
                }
                (None, Some(new)) => reasons.push(DirtyReason::InputAdded { port, label, new: new.digest }),
                (Some(old), None) => reasons.push(DirtyReason::InputRemoved { port, label, old: old.digest }),
                (None, None) => {}
            }
        }
        let names = |elements: &Elements<'_>| {
            elements.values().map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>()
        };
        if reasons.len() == before && names(old) != names(new) {
            reasons.push(DirtyReason::InputOrderChanged { port: (*port).to_owned() });
        }
    }
}

fn by_port(manifest: &Manifest) -> BTreeMap<&str, Elements<'_>> {
    let mut inputs: Vec<(&str, usize, Option<&str>, &str)> = manifest
        .inputs
        .keys()
        .map(|name| match split_element(name) {
            // Whether it lies in a folder of its own is not which one it is.
            Some((port, index, label)) => {
                (port, index, Some(label.strip_suffix('/').unwrap_or(label)), name.as_str())
            }
            None => (name.as_str(), 0, None, name.as_str()),
        })
        .collect();
    inputs.sort_unstable();
    let mut ports: BTreeMap<&str, Elements<'_>> = BTreeMap::new();
    for (port, index, label, name) in inputs {
        let elements = ports.entry(port).or_default();
        let earlier = elements.keys().filter(|(other, _)| *other == label).count();
        elements.insert((label, earlier), (index, name));
    }
    ports
}

fn diff_external(previous: &Manifest, current: &Manifest, reasons: &mut Vec<DirtyReason>) {
    for (port, old, new) in paired(&previous.external, &current.external) {
        let port = port.clone();
        match (old, new) {
            (Some(old), Some(new)) if old != new => {
                reasons.push(DirtyReason::ExternalChanged { port, old: old.digest, new: new.digest });
            }
            (None, Some(new)) => reasons.push(DirtyReason::ExternalAdded { port, new: new.digest }),
            (Some(old), None) => reasons.push(DirtyReason::ExternalRemoved { port, old: old.digest }),
            _ => {}
        }
    }
}

fn diff_outputs(previous: &Manifest, current: &Manifest, reasons: &mut Vec<DirtyReason>) {
    for (port, old, new) in paired(&previous.outputs, &current.outputs) {
        let port = port.clone();
        match (old, new) {
            (Some(old), Some(new)) if old != new => {
                reasons.push(DirtyReason::FormatChanged { port, old: old.clone(), new: new.clone() });
            }
            (None, Some(_)) => reasons.push(DirtyReason::OutputAdded { port }),
            (Some(_), None) => reasons.push(DirtyReason::OutputRemoved { port }),
            _ => {}
        }
    }
}

impl fmt::Display for DirtyReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => formatter.write_str("it has no result on record"),
            Self::Forced => formatter.write_str("it was forced"),
            Self::OutputsMissing => formatter.write_str("its outputs are no longer in the cache"),
            Self::RecordCorrupt { detail } => {
                write!(formatter, "the record of its result is damaged: {detail}")
            }
            Self::KindChanged { old, new } => write!(formatter, "kind: `{old}` → `{new}`"),
            Self::VersionChanged { old, new } => write!(formatter, "version of the code: {old} → {new}"),
            Self::ParamChanged { path, old, new } => {
                write!(formatter, "parameter `{path}`: {} → {}", Short(old), Short(new))
            }
            Self::ParamAdded { path, new } => write!(formatter, "parameter `{path}` added: {}", Short(new)),
            Self::ParamRemoved { path, old } => {
                write!(formatter, "parameter `{path}` removed, was {}", Short(old))
            }
            Self::InputChanged { port, label, old, new } => {
                write!(formatter, "input {} changed ({} → {})", Port(port, label), old.short(), new.short())
            }
            Self::InputAdded { port, label, .. } => write!(formatter, "input {} added", Port(port, label)),
            Self::InputRemoved { port, label, .. } => {
                write!(formatter, "input {} removed", Port(port, label))
            }
            Self::InputOrderChanged { port } => {
                write!(formatter, "input `{port}`: same elements in another order, or in other folders")
            }
            Self::ExternalChanged { port, old, new } => {
                write!(formatter, "external files `{port}` changed ({} → {})", old.short(), new.short())
            }
            Self::ExternalAdded { port, .. } => write!(formatter, "external files `{port}` added"),
            Self::ExternalRemoved { port, .. } => write!(formatter, "external files `{port}` removed"),
            Self::FormatChanged { port, old, new } => {
                write!(formatter, "port `{port}`: {} format {} → ", old.name, old.format)?;
                write!(formatter, "{} format {}", new.name, new.format)
            }
            Self::OutputAdded { port } => write!(formatter, "output `{port}` added"),
            Self::OutputRemoved { port } => write!(formatter, "output `{port}` removed"),
            Self::SeedChanged { old, new } => write!(formatter, "seed: {} → {}", Maybe(old), Maybe(new)),
            Self::DeviceChanged { old, new } => write!(formatter, "device: {} → {}", Maybe(old), Maybe(new)),
            Self::EnvironmentChanged { name, old, new } => {
                write!(formatter, "environment `{name}`: {} → {}", Maybe(old), Maybe(new))
            }
        }
    }
}

/// A JSON value on one line, cut after 80 characters.
struct Short<'a>(&'a Value);

impl fmt::Display for Short<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.char_indices().nth(80) {
            Some((end, _)) => write!(formatter, "{}…", &text[..end]),
            None => formatter.write_str(&text),
        }
    }
}

struct Port<'a>(&'a str, &'a Option<String>);

impl fmt::Display for Port<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(label) => write!(formatter, "`{}` from stage `{label}`", self.0),
            None => write!(formatter, "`{}`", self.0),
        }
    }
}

struct Maybe<'a, T>(&'a Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(formatter),
            None => formatter.write_str("none"),
        }
    }
}
