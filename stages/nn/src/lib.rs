//! Networks on dfdx: layer graphs, CPU kernels, losses, optimisers and the training loop.
//!
//! Slices in, slices out: knows no pipeline and no file format but safetensors. Arrays are C-ordered, channels first
//! outside (`[n, c, z, y, x]`) and channels last inside. Training is bit-reproducible for a seed, whatever the thread
//! count and the instruction set; parallel work runs on rayon's current pool.
//!
//! | module | owns |
//! |---|---|
//! | `architecture` (`unet`, `classifier`) → `network`, `freeze` | a name with parameters, compiled to a layer graph of plain data |
//! | `model`, `pass`, `weights`, `layout`, `init`, `transfer` | the graph with values; parameters in the layout of PyTorch, from files of others |
//! | `backend`, `kernels` | the operations over dfdx's tape, and their fused forms for processors and CUDA devices |
//! | `data`, `batch`, `augment`, `rng` | cases, and the samples cut out of them |
//! | `loss`, `optimizer`, `schedule` | what is minimised, and how |
//! | `device` | the processor, or a CUDA device |
//! | `config`, `train`, `step`, `validate`, `sliding`, `progress`, `checkpoint` | the loop, its scores, its state on disk |

mod architecture;
mod augment;
mod backend;
mod batch;
mod checkpoint;
mod classifier;
mod config;
mod data;
mod device;
mod error;
mod freeze;
mod geometry;
mod init;
mod kernels;
mod layout;
mod loss;
mod model;
mod network;
mod optimizer;
mod pass;
mod progress;
mod rng;
mod schedule;
mod sliding;
mod step;
mod train;
mod transfer;
mod unet;
mod validate;
mod weights;
mod words;

pub use architecture::{Architecture, Io};
pub use augment::{Augment, Random};
pub use backend::{Act, Backend, CpuBackend, Flat, Labels, Recorder, Reference, Rows};
#[cfg(feature = "cuda")]
pub use backend::{CudaBackend, DeviceFailure};
pub use classifier::{Classifier, Linear};
pub use config::{EarlyStopping, Penalty, TrainConfig};
pub use data::{Case, CaseSource, LoadError};
#[cfg(feature = "cuda")]
pub use device::open_cuda;
pub use device::{Chosen, Device, Processor, train_with, try_cuda};
pub use error::NnError;
pub use geometry::{Geometry, Window};
pub use init::Initialization;
pub use kernels::Isa;
pub use loss::{
    Bce, CrossEntropy, Dice, DiceCe, Focal, IGNORE, Loss, LossTerms, Mse, RegionTerm, Tversky, VoxelTerm,
};
pub use model::{Derivatives, Model};
pub use network::{
    Activation, Dims, Network, Node, NodeId, Norm, Op, ParameterId, ParameterSpec, Role, Task,
};
pub use optimizer::{Adam, Clip, Optimizer, Rmsprop, Sgd};
pub use progress::{EpochRow, LayerRow, Progress, Quantity, Score, Trained, Validation};
pub use schedule::{Clock, Constant, Cosine, Exponential, OneCycle, Plateau, Poly, Schedule, Step, Warmup};
pub use train::{TrainJob, train, train_on};
pub use transfer::{Element, Fate, Tensors, Transfer, TransferRow};
pub use unet::{Down, Encoder, UNet, Up};
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
