//! The device that a pipeline or a command asks for, and the one it gets.

use crate::context::StageContext;
use crate::error::StageError;
use pipe_onnx::{Device, Provider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What networks run on. A device that is asked for by name and is not there is an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceName {
    /// The processor: the same bits on every machine with the same ONNX Runtime.
    #[default]
    Cpu,
    /// The first that works of CUDA, CoreML, DirectML and OpenVINO, else the processor; the log says which.
    Auto,
    /// NVIDIA.
    Cuda,
    /// NVIDIA, with an engine built for each shape: minutes at first.
    Tensorrt,
    /// Apple.
    Coreml,
    /// Windows.
    Directml,
    /// Intel.
    Openvino,
}

impl From<DeviceName> for Device {
    fn from(name: DeviceName) -> Self {
        match name {
            DeviceName::Cpu => Self::Cpu,
            DeviceName::Auto => Self::Auto,
            DeviceName::Cuda => Self::Cuda,
            DeviceName::Tensorrt => Self::Tensorrt,
            DeviceName::Coreml => Self::Coreml,
            DeviceName::Directml => Self::Directml,
            DeviceName::Openvino => Self::Openvino,
        }
    }
}

/// Takes the device that was asked for and notes which one it is. The runtime must be loaded.
pub(crate) fn take(name: DeviceName, context: &StageContext) -> Result<Provider, StageError> {
    let chosen =
        pipe_onnx::device::choose(name.into()).map_err(StageError::inner("choosing what networks run on"))?;
    for line in &chosen.passed_over {
        context.warn(line.clone());
    }
    context.note(format!("networks run on {}", chosen.provider));
    context.fact("device", chosen.provider.to_string());
    Ok(chosen.provider)
}
