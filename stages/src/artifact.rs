//! Typed values that flow along pipeline edges, and the ports that name them.

use crate::error::StageError;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A value one stage writes and another reads, stored as a directory of files.
///
/// Bump [`FORMAT`](Artifact::FORMAT) when the files on disk change meaning: it is part of every key that touches
/// the artifact.
pub trait Artifact: Sized + 'static {
    /// Name used in plans, errors and traces, e.g. `"fold-table"`.
    const TYPE: &'static str;
    /// Version of the on-disk files.
    const FORMAT: u32;

    /// Reads the value, or opens it where it is too large to read at once.
    fn load(dir: &Path) -> Result<Self, StageError>;
    /// Writes the value into the empty directory `dir`.
    fn store(&self, dir: &Path) -> Result<(), StageError>;
}

/// Type and format of an artifact, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactType {
    pub name: &'static str,
    pub format: u32,
}

impl ArtifactType {
    pub const fn of<A: Artifact>() -> Self {
        Self { name: A::TYPE, format: A::FORMAT }
    }
}

macro_rules! port {
    ($(#[$doc:meta])* $name:ident, $phantom:ty) => {
        $(#[$doc])*
        pub struct $name<A> {
            pub name: &'static str,
            artifact: PhantomData<$phantom>,
        }

        impl<A: Artifact> $name<A> {
            pub const fn new(name: &'static str) -> Self {
                Self { name, artifact: PhantomData }
            }
        }
    };
}

port!(
    /// An input port: a name, bound at compile time to the artifact type read from it.
    In, fn() -> A
);
port!(
    /// An input port that may be left unwired.
    InOptional, fn() -> A
);
port!(
    /// An input port that takes a number of artifacts, in the order written.
    InMany, fn() -> A
);
port!(
    /// An output port: a name, bound at compile time to the artifact type written to it.
    Out, fn(A)
);

/// How many artifacts an input port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    One,
    /// None or one.
    Optional,
    /// One or more.
    Many,
    /// None or more.
    Any,
}

impl Arity {
    pub fn may_be_unwired(self) -> bool {
        matches!(self, Self::Optional | Self::Any)
    }

    pub fn takes_several(self) -> bool {
        matches!(self, Self::Many | Self::Any)
    }
}

/// An input port as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPort {
    pub name: Cow<'static, str>,
    /// `None` accepts every artifact type.
    pub artifact: Option<ArtifactType>,
    pub arity: Arity,
}

/// An output port as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPort {
    pub name: Cow<'static, str>,
    pub artifact: ArtifactType,
}

/// Files outside the pipeline that a stage reads; their content enters its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// In the manifest, so it may hold nothing of this machine.
    pub name: Cow<'static, str>,
    /// The parameter that names it, for messages.
    pub parameter: &'static str,
    /// A file or folder; relative paths are relative to the working directory.
    pub path: PathBuf,
    /// Files and folders below `path` that are read; empty for all.
    pub parts: Vec<PathBuf>,
    /// What is made of parts that do not exist.
    pub absent: Absent,
}

/// What is made of parts of an [`External`] that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// They are left out.
    LeftOut,
    /// They are left out; where none exists, everything below the path is read.
    Whole,
    /// The stage cannot do without: a run says so before any stage starts.
    Refused,
}

/// What a stage needs while it runs. Never part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Threads without which it does not start.
    pub cpu: usize,
    /// Threads that it can use if nothing else wants them. Its rayon pool has as many as it was given.
    pub cpu_max: usize,
    pub memory_bytes: u64,
    pub gpu: usize,
}

impl Resources {
    /// One thread, for work that does not divide.
    pub const SERIAL: Self = Self { cpu: 1, cpu_max: 1, memory_bytes: 0, gpu: 0 };
    /// As many threads as are free, for work that divides.
    pub const PARALLEL: Self = Self { cpu: 1, cpu_max: usize::MAX, memory_bytes: 0, gpu: 0 };
}

impl Default for Resources {
    fn default() -> Self {
        Self::SERIAL
    }
}

/// The ports of one configured stage, and everything else that it may ask its context for.
#[derive(Debug, Default, Clone)]
pub struct Ports {
    pub inputs: Vec<InputPort>,
    pub outputs: Vec<OutputPort>,
    pub externals: Vec<External>,
    /// Paths where nothing is now, and where something would be read in place of an external file.
    pub absent: Vec<Arc<[PathBuf]>>,
    /// Names of environment variables whose values enter the key.
    pub environment: Vec<String>,
    pub resources: Resources,
    pub seeded: bool,
    /// Every name wired under `in:` becomes a port of its own that takes any artifact.
    pub open_inputs: bool,
}

impl Ports {
    /// Declares that the stage draws random numbers: the seed enters its key.
    pub fn seeded(&mut self) -> &mut Self {
        self.seeded = true;
        self
    }

    /// Adds the inputs that the pipeline file wires to a stage with open inputs.
    pub fn open(&mut self, names: impl Iterator<Item = String>) {
        if self.open_inputs {
            self.inputs.extend(names.map(|name| InputPort {
                name: Cow::Owned(name),
                artifact: None,
                arity: Arity::Many,
            }));
        }
    }

    pub fn reads<A: Artifact>(&mut self, port: &In<A>) -> &mut Self {
        self.input::<A>(port.name, Arity::One)
    }

    pub fn reads_optional<A: Artifact>(&mut self, port: &InOptional<A>) -> &mut Self {
        self.input::<A>(port.name, Arity::Optional)
    }

    /// Declares an input of one or more artifacts.
    pub fn reads_many<A: Artifact>(&mut self, port: &InMany<A>) -> &mut Self {
        self.input::<A>(port.name, Arity::Many)
    }

    /// Declares an input of any number of artifacts, none included.
    pub fn reads_any<A: Artifact>(&mut self, port: &InMany<A>) -> &mut Self {
        self.input::<A>(port.name, Arity::Any)
    }

    pub fn writes<A: Artifact>(&mut self, port: &Out<A>) -> &mut Self {
        self.writes_named::<A>(Cow::Borrowed(port.name))
    }

    /// Declares an output whose name is known only from the parameters.
    pub fn writes_named<A: Artifact>(&mut self, name: Cow<'static, str>) -> &mut Self {
        self.outputs.push(OutputPort { name, artifact: ArtifactType::of::<A>() });
        self
    }

    pub fn reads_files(&mut self, external: External) -> &mut Self {
        self.externals.push(external);
        self
    }

    /// Declares that the stage would be another if something came to be at one of these paths, as a program in an earlier
    /// folder of `PATH`.
    pub fn would_find(&mut self, absent: Arc<[PathBuf]>) -> &mut Self {
        self.absent.push(absent);
        self
    }

    /// Whether these are the outputs, by name.
    pub fn has_outputs<T>(&self, outputs: &BTreeMap<String, T>) -> bool {
        let has = |port: &OutputPort| outputs.contains_key(&*port.name);
        self.outputs.len() == outputs.len() && self.outputs.iter().all(has)
    }

    pub fn reads_environment(&mut self, name: impl Into<String>) -> &mut Self {
        self.environment.push(name.into());
        self
    }

    pub fn needs(&mut self, resources: Resources) -> &mut Self {
        self.resources = resources;
        self
    }

    fn input<A: Artifact>(&mut self, name: &'static str, arity: Arity) -> &mut Self {
        let artifact = Some(ArtifactType::of::<A>());
        self.inputs.push(InputPort { name: Cow::Borrowed(name), artifact, arity });
        self
    }
}
