//! ONNX in and out: a writer of small ONNX graphs, ONNX Runtime sessions, and inference on whole volumes.
//! Knows arrays and files; must not know pipelines, stages or how networks are trained.
//!
//! | module | owns |
//! |---|---|
//! | [`weights`] | the weights of any file, by name, without running it |
//! | [`writer`] | [`GraphBuilder`]: layers and PyTorch-layout weights to the bytes of a `.onnx` file |
//! | [`merge`](mod@merge) | several models of one input as one |
//! | `proto` | the wire format: the ONNX messages that the writer fills |
//! | [`runtime`] | finding, fetching and loading the ONNX Runtime library, once a process |
//! | [`session`] | [`Session`]: a checked model that runs on float arrays |
//! | [`device`] | what a model runs on: which execution providers there are, and which one is taken |
//! | [`mod@predict`] | what is asked of a prediction, and predictions as one array |
//! | [`planes`] | the sliding window: padding, tiles, slices and mirroring, plane after plane |
//! | [`probabilities`] | softmax, and labels |

mod proto;

pub mod device;
pub mod merge;
pub mod planes;
pub mod predict;
pub mod probabilities;
pub mod runtime;
pub mod session;
mod tiles;
pub mod weights;
pub mod writer;

pub use device::{Chosen, Device, DeviceError, Provider};
pub use planes::Planes;
pub use predict::{Blend, PredictError, PredictOptions, Tiling, predict, predict_classes};
pub use probabilities::{Probabilities, softmax};
pub use runtime::{Origin, Policy, Runtime, RuntimeError, RuntimeInfo};
pub use session::{ModelInterface, Session, SessionError};
pub use writer::{BuildError, Dims, GraphBuilder, Value, Weights, Window};
