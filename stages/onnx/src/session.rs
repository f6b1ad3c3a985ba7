//! A model loaded into ONNX Runtime: checks the model's interface once and every input before it runs.
//! Knows arrays; padding, tiling and what the numbers mean are `predict`'s subject.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ndarray::ArrayViewD;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorElementType, TensorRef, ValueType};

use crate::device::Provider;
use crate::runtime::{RuntimeError, runtime};
use crate::writer::{DIVISOR_KEY, Dims, OUTPUT};

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The model's file cannot be read.
    #[error("cannot read the model `{path}`: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// ONNX Runtime does not accept the model.
    #[error("{model} is not a model that ONNX Runtime can load: {reason}")]
    Model { model: String, reason: String },
    /// The model runs, but its inputs, outputs or metadata are not those of a pipe model.
    #[error("{model}: {reason}")]
    Interface { model: String, reason: String },
    /// The input array does not fit the model.
    #[error("the input of shape {shape:?} does not fit {model}: {reason}")]
    Input { model: String, shape: Vec<usize>, reason: String },
    /// ONNX Runtime failed while it ran the model.
    #[error("running {model} on an input of shape {shape:?} failed: {reason}")]
    Run { model: String, shape: Vec<usize>, reason: String },
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInterface {
    /// Number of spatial axes.
    pub dims: Dims,
    /// Size of the input's channel axis; `None` where the model leaves it open.
    pub channels: Option<usize>,
    /// Size of the output's channel axis; `None` where the model leaves it open.
    pub classes: Option<usize>,
    /// Size of the batch axis where the model fixes it.
    pub batch: Option<usize>,
    /// Spatial sizes that the model fixes, in the order `(z), y, x`.
    pub spatial: Vec<Option<usize>>,
    /// What each spatial size must divide by, in the order `(z), y, x`; from the metadata entry [`DIVISOR_KEY`], 1
    /// without it.
    pub divisor: Vec<usize>,
    /// All metadata entries of the file.
    pub metadata: BTreeMap<String, String>,
}

/// A model ready to run.
///
/// It can be sent to another thread but runs one input at a time (`&mut self`), because ONNX Runtime's parts are not
/// all thread-safe. For parallel work give each worker its own session (weights are then held once a worker), or put
/// one behind a `Mutex`.
#[derive(Debug)]
pub struct Session {
    inner: ort::session::Session,
    interface: ModelInterface,
    /// Names of the input and the output.
    names: [String; 2],
    /// How errors name the model.
    model: String,
}

impl Session {
    /// Loads a model file; `threads` is the number of threads one run uses, on which the last bits may depend.
    ///
    /// The model must have one input (`[n, c, (z), y, x]`, float32) and one output, or several of which one is called
    /// [`OUTPUT`] (float32): other programs name them as they like.
    /// Uses the process's runtime ([`runtime`]), which never fetches.
    pub fn from_file(path: &Path, threads: NonZeroUsize) -> Result<Self, SessionError> {
        let model = format!("the model `{}`", path.display());
        fs_err::File::open(path)
            .map_err(|error| SessionError::Read { path: path.to_owned(), source: error })?;
        Self::new(model, threads, Provider::Cpu, |mut builder| builder.commit_from_file(path))
    }

    /// Loads a model from the bytes of its file; see [`Session::from_file`].
    pub fn from_bytes(bytes: &[u8], threads: NonZeroUsize) -> Result<Self, SessionError> {
        Self::from_bytes_on(bytes, threads, Provider::Cpu)
    }

    /// Loads a model to run on a provider, of which [`choose`](crate::device::choose) says whether there is one. What it
    /// cannot do runs on the CPU; where it does not start, the session fails.
    pub fn from_bytes_on(
        bytes: &[u8],
        threads: NonZeroUsize,
        provider: Provider,
    ) -> Result<Self, SessionError> {
        let model = format!("the model of {} bytes", bytes.len());
        Self::new(model, threads, provider, |mut builder| builder.commit_from_memory(bytes))
    }

    fn new(
        model: String,
        threads: NonZeroUsize,
        provider: Provider,
        commit: impl FnOnce(SessionBuilder) -> ort::Result<ort::session::Session>,
    ) -> Result<Self, SessionError> {
        let environment = runtime()?.environment();
        let build = || -> ort::Result<ort::session::Session> {
            let mut builder = ort::session::Session::builder(environment)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(threads.get())?;
            if let Some(dispatch) = provider.dispatch() {
                builder = builder.with_execution_providers([dispatch])?;
            }
            commit(builder)
        };
        let session = build().map_err(|error| SessionError::Model {
            model: model.clone(),
            reason: one_line(error.message()),
        })?;
        let (interface, names) = read_interface(&session)
            .map_err(|reason| SessionError::Interface { model: model.clone(), reason })?;
        Ok(Self { inner: session, interface, names, model })
    }

    /// Returns what the model takes and gives.
    pub fn interface(&self) -> &ModelInterface {
        &self.interface
    }

    /// Runs the model.
    ///
    /// `input`: C order, of `shape` `[n, c, (z), y, x]`, no axis empty, spatial sizes multiples of the divisor.
    /// Returns the logits in C order and their shape, `[n, classes, (z), y, x]` or `[n, classes]`.
    pub fn run(&mut self, input: &[f32], shape: &[usize]) -> Result<(Vec<f32>, Vec<usize>), SessionError> {
        if let Err(reason) = self.interface.check(input.len(), shape) {
            let (model, shape) = (self.model.clone(), shape.to_vec());
            return Err(SessionError::Input { model, shape, reason });
        }
        self.run_checked(input, shape).map_err(|reason| {
            let (model, shape) = (self.model.clone(), shape.to_vec());
            SessionError::Run { model, shape, reason }
        })
    }

    fn run_checked(&mut self, input: &[f32], shape: &[usize]) -> Result<(Vec<f32>, Vec<usize>), String> {
        let message = |error: ort::Error| one_line(error.message());
        let view = ArrayViewD::from_shape(shape, input).map_err(|error| error.to_string())?;
        let tensor = TensorRef::from_array_view(view).map_err(message)?;
        let [input, output] = &self.names;
        let outputs = self.inner.run(ort::inputs![input.as_str() => tensor]).map_err(message)?;
        let logits = outputs.get(output).ok_or_else(|| format!("there is no output `{output}`"))?;
        let (sizes, values) = logits.try_extract_tensor::<f32>().map_err(message)?;
        let sizes = sizes.iter().map(|size| *size as usize).collect();
        Ok((values.to_vec(), sizes))
    }
}

impl ModelInterface {
    /// Checks an input of `length` values; the error completes "does not fit the model".
    fn check(&self, length: usize, shape: &[usize]) -> Result<(), String> {
        let rank = self.dims.count() + 2;
        if shape.len() != rank {
            return Err(format!("it has {} axes but the model takes {rank}", shape.len()));
        }
        let product = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        if product != Some(length) || length == 0 {
            return Err(format!("it has {length} values"));
        }
        let fixed = [("batch", self.batch), ("channels", self.channels)].into_iter();
        let names = self.dims.names().iter().copied();
        let fixed = fixed.chain(names.clone().zip(self.spatial.iter().copied()));
        for ((axis, fixed), size) in fixed.zip(shape) {
            if fixed.is_some_and(|fixed| fixed != *size) {
                return Err(format!("the {axis} axis is {size} but must be {}", fixed.unwrap_or_default()));
            }
        }
        for ((axis, divisor), size) in names.zip(&self.divisor).zip(&shape[2..]) {
            if !size.is_multiple_of(*divisor) {
                return Err(format!("the {axis} axis is {size}, which does not divide by {divisor}"));
            }
        }
        Ok(())
    }
}

/// Reads inputs, outputs and metadata, and the names of the input and the output; the error completes a sentence that
/// names the model.
fn read_interface(session: &ort::session::Session) -> Result<(ModelInterface, [String; 2]), String> {
    let names = |outlets: &[ort::value::Outlet]| {
        outlets.iter().map(|outlet| format!("`{}`", outlet.name())).collect::<Vec<_>>().join(", ")
    };
    let [input] = session.inputs() else {
        return Err(format!("needs one input but has {}", names(session.inputs())));
    };
    let outputs = session.outputs();
    let output = match outputs {
        [only] => only,
        several => several.iter().find(|output| output.name() == OUTPUT).ok_or_else(|| {
            format!("needs one output, or one called `{OUTPUT}`, but has {}", names(outputs))
        })?,
    };
    let own_names = [input, output].map(|outlet| outlet.name().to_owned());
    let (input, output) = (float_shape(input)?, float_shape(output)?);

    let dims = match input.len() {
        4 => Dims::Two,
        5 => Dims::Three,
        0 => {
            return Err("does not say how many axes its input has: export it with a name for each open axis"
                .to_owned());
        }
        rank => {
            return Err(format!(
                "its input has {rank} axes but 4 ([n, c, y, x]) or 5 ([n, c, z, y, x]) are needed"
            ));
        }
    };
    if output.len() != 2 && output.len() != input.len() {
        let rank = output.len();
        return Err(format!("its output has {rank} axes but 2 or {} are needed", input.len()));
    }
    let metadata = read_metadata(session).map_err(|error| one_line(error.message()))?;
    let divisor = match metadata.get(DIVISOR_KEY) {
        None => vec![1; dims.count()],
        Some(text) => parse_divisor(text, dims).ok_or_else(|| {
            format!("its metadata `{DIVISOR_KEY}` is `{text}` but must be {} numbers above 0", dims.count())
        })?,
    };
    let interface = ModelInterface {
        dims,
        batch: input[0],
        channels: input[1],
        classes: output[1],
        spatial: input[2..].to_vec(),
        divisor,
        metadata,
    };
    Ok((interface, own_names))
}

/// Returns the axes of a float tensor, `None` where open.
fn float_shape(outlet: &ort::value::Outlet) -> Result<Vec<Option<usize>>, String> {
    match outlet.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => {
            Ok(shape.iter().map(|size| usize::try_from(*size).ok()).collect())
        }
        other => {
            let name = outlet.name();
            Err(format!(
                "`{name}` is {other} but must be a float32 tensor: export the model in single precision"
            ))
        }
    }
}

fn read_metadata(session: &ort::session::Session) -> ort::Result<BTreeMap<String, String>> {
    let metadata = session.metadata()?;
    let keys = metadata.custom_keys()?;
    Ok(keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect())
}

fn parse_divisor(text: &str, dims: Dims) -> Option<Vec<usize>> {
    let divisor: Vec<usize> = text.split(',').map(|size| size.trim().parse().ok()).collect::<Option<_>>()?;
    (divisor.len() == dims.count() && !divisor.contains(&0)).then_some(divisor)
}

/// ONNX Runtime's messages may have several lines; errors here have one.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
