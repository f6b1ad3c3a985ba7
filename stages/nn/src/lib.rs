//! Networks on dfdx: layer graphs, CPU kernels, losses, optimisers and the training loop.
//!
//! Slices in, slices out: knows no pipeline and no file format but safetensors. Arrays are C-ordered, channels first
//! outside (`[n, c, z, y, x]`) and channels last inside. Training is bit-reproducible for a seed, whatever the thread
//! count and the instruction set; parallel work runs on rayon's current pool.
//!
//! | module | owns |
//! |---|---|
//! | `unet` → `network` | a configuration, compiled to a layer graph of plain data |
//! | `model`, `weights`, `layout`, `init` | the graph with values; parameters in the layout of PyTorch |
//! | `backend`, `kernels` | the operations over dfdx's tape, and their fused CPU forms |
//! | `data`, `batch`, `augment`, `rng` | cases, and the samples cut out of them |
//! | `loss`, `optimizer`, `schedule` | what is minimised, and how |
//! | `train`, `validate`, `checkpoint` | the loop, its metric, its state on disk |

mod augment;
mod backend;
mod batch;
mod checkpoint;
mod data;
mod error;
mod geometry;
mod init;
mod kernels;
mod layout;
mod loss;
mod model;
mod network;
mod optimizer;
mod rng;
mod schedule;
mod train;
mod unet;
mod validate;
mod weights;

pub use augment::Augmentation;
pub use backend::{Act, Backend, CpuBackend, Flat, Labels, Recorder, Reference, Rows};
pub use data::{Case, CaseSource, LoadError};
pub use error::NnError;
pub use geometry::{Geometry, Window};
pub use kernels::Isa;
pub use loss::{IGNORE, LossConfig};
pub use model::{Derivatives, Model};
pub use network::{Dims, Network, Node, NodeId, Op, ParameterId, ParameterSpec, Role};
pub use optimizer::Optimizer;
pub use schedule::Schedule;
pub use train::{EpochRow, Progress, TrainConfig, Trained, train, train_on};
pub use unet::UNetConfig;
pub use weights::{Parameter, Parameters};

/// Version of dfdx that networks train with: the one that the workspace pins.
pub const DFDX_VERSION: &str = "0.13.0";

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_of_dfdx_is_the_pinned_one() {
        let pinned = format!("dfdx = {{ version = \"={}\"", super::DFDX_VERSION);
        assert!(include_str!("../../../Cargo.toml").contains(&pinned), "Cargo.toml does not say {pinned}");
    }
}
