//! ONNX in and out: a writer of small ONNX graphs, ONNX Runtime sessions, and inference on whole volumes.
//! Knows arrays and files; must not know pipelines, stages or how networks are trained.
//!
//! | module | owns |
//! |---|---|
//! | [`writer`] | [`GraphBuilder`]: layers and PyTorch-layout weights to the bytes of a `.onnx` file |
//! | `proto` | the wire format: the ONNX messages that the writer fills |
//! | [`runtime`] | finding, fetching and loading the ONNX Runtime library, once a process |
//! | [`session`] | [`Session`]: a checked model that runs on float arrays |
//! | [`mod@predict`] | padding, sliding window, slices and mirroring over a `[c, z, y, x]` volume |
//! | [`probabilities`] | softmax, labels and the mean of several predictions |

mod proto;

pub mod predict;
pub mod probabilities;
pub mod runtime;
pub mod session;
mod tiles;
pub mod writer;

pub use predict::{PredictError, PredictOptions, predict, predict_classes};
pub use probabilities::{Probabilities, ProbabilityMean};
pub use runtime::{Origin, Policy, Runtime, RuntimeError, RuntimeInfo};
pub use session::{ModelInterface, Session, SessionError};
pub use writer::{BuildError, Dims, GraphBuilder, Value, Weights, Window};
