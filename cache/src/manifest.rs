//! What the result of a stage depends on, and the key made of it.
//!
//! | value | in the key | why |
//! |---|---|---|
//! | encoding of the manifest | yes | [`MANIFEST_VERSION`] |
//! | kind, version of its code | yes | other code, other bytes |
//! | params after defaults | yes | writing a default out changes nothing |
//! | input: port, element label and index, artifact type and format, content digest | yes | shallow: a rerun upstream that gives the same bytes ends here |
//! | external files: digest of the listing (relative paths and contents) | yes | data sets are inputs too |
//! | output ports, their artifact types and formats | yes | they say what is written |
//! | seed, device class, declared environment | if declared | a stage sees them only then |
//! | keys and commands of upstream stages | no | contents stand for them: early cutoff |
//! | name of the stage, place in the file, matrix cell | no | renaming is free |
//! | absolute paths, mtimes, owners, permissions except "executable" | no | the same data elsewhere is the same data |
//! | host, user, time, attempt, thread count, resources, console options | no | they must not change a result |
//!
//! The label of an element of a many-port is in the key, as the stage sees it and may write it out.

use crate::canonical;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::store::Store;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Version of the encoding below the key. A bump changes every key.
pub const MANIFEST_VERSION: u32 = 1;

/// Names the result of a stage: the hash of its [`Manifest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionKey(pub Digest);

impl fmt::Display for ActionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for ActionKey {
    type Err = CacheError;

    fn from_str(text: &str) -> Result<Self, CacheError> {
        text.parse().map(Self)
    }
}

/// Type of an artifact and version of its files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactType {
    /// E.g. `fold-table`.
    pub name: String,
    /// Version of the files on disk.
    pub format: u32,
}

/// What is read from an input port, or from one element of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecord {
    /// As what it is read.
    pub artifact: ArtifactType,
    /// Tree of its files.
    pub digest: Digest,
}

/// Files outside of the cache that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalRecord {
    /// Tree of the listing: see [`Listing`](crate::Listing).
    pub digest: Digest,
}

/// Everything that may change the outputs of a stage, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Kind of the stage.
    pub kind: String,
    /// Version of its code, bumped when the same inputs give other bytes.
    pub version: u32,
    /// Params after defaults, as a map.
    pub params: Value,
    /// Input port, or [`input_element`] of a many-port → what is read from it.
    pub inputs: BTreeMap<String, InputRecord>,
    /// Name of an external input → what is read from it.
    pub external: BTreeMap<String, ExternalRecord>,
    /// Output port → what is written to it.
    pub outputs: BTreeMap<String, ArtifactType>,
    /// Present only for a stage that declared it.
    pub seed: Option<u64>,
    /// Device class, e.g. `cpu`; present only for a stage that declared it.
    pub device: Option<String>,
    /// Declared environment variable → its value, `None` where it is not set.
    pub environment: BTreeMap<String, Option<String>>,
}

/// The name of one element of a many-port: `models[0:train[fold=0]]`.
///
/// `index` keeps the order in which the stage sees the elements, `label` tells which is which. It ends in `/` where the only
/// element lies in a folder of that name, and not in that of the port.
pub fn input_element(port: &str, index: usize, label: &str) -> String {
    format!("{port}[{index}:{label}]")
}

/// Undoes [`input_element`]; `None` for a port with one input.
pub(crate) fn split_element(name: &str) -> Option<(&str, usize, &str)> {
    let (port, rest) = name.strip_suffix(']')?.split_once('[')?;
    let (index, label) = rest.split_once(':')?;
    Some((port, index.parse().ok()?, label))
}

/// A stored manifest, with the version that its key was made by.
#[derive(Serialize, Deserialize)]
struct Stored<M> {
    format: u32,
    manifest: M,
}

impl Manifest {
    /// The key of the stage's result.
    ///
    /// The BLAKE3 hash of the text `pipe-manifest`, [`MANIFEST_VERSION`] and this manifest as a JSON map
    /// with the field names above, in the canonical encoding of `canonical.rs`.
    pub fn key(&self) -> ActionKey {
        let value = serde_json::to_value(self).expect("a manifest has only text keys");
        ActionKey(canonical::hash("pipe-manifest", MANIFEST_VERSION, &value))
    }

    /// Stores the manifest as an object, so that a later `why` can read it.
    pub fn put(&self, store: &Store) -> Result<Digest, CacheError> {
        let stored = Stored { format: MANIFEST_VERSION, manifest: self };
        store.put_bytes(&serde_json::to_vec(&stored).expect("a manifest has only text keys"))
    }

    /// Reads a stored manifest.
    pub fn get(store: &Store, digest: &Digest) -> Result<Self, CacheError> {
        let bytes = store.get_bytes(digest)?;
        let stored: Stored<Value> =
            serde_json::from_slice(&bytes).map_err(|error| CacheError::malformed("a manifest", error))?;
        if stored.format != MANIFEST_VERSION {
            let reason = format!("it has format {}, this pipe reads {MANIFEST_VERSION}", stored.format);
            return Err(CacheError::malformed("a manifest", reason));
        }
        serde_json::from_value(stored.manifest).map_err(|error| CacheError::malformed("a manifest", error))
    }
}
