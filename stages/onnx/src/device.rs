//! What a model runs on: which execution providers the loaded library has, which of them work here, and which one is
//! taken. An explicit wish is met or refused; only `auto` looks further.

use std::num::NonZeroUsize;

use ort::ep::{self, ExecutionProvider as _, ExecutionProviderDispatch};

use crate::runtime::{RuntimeError, runtime};
use crate::session::Session;
use crate::writer::{Dims, GraphBuilder};

/// What a model shall run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The first that works of CUDA, `CoreML`, `DirectML` and `OpenVINO`, else the CPU. Never TensorRT, which takes minutes
    /// to build an engine for each shape.
    Auto,
    /// The processor: the same bits for any number of threads.
    #[default]
    Cpu,
    Cuda,
    Tensorrt,
    Coreml,
    Directml,
    Openvino,
}

/// What a model runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Cpu,
    Cuda,
    Tensorrt,
    Coreml,
    Directml,
    Openvino,
}

/// The provider that was taken, and why others were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub provider: Provider,
    /// One line for each provider that `auto` would have preferred.
    pub passed_over: Vec<String>,
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The library was built without the provider.
    #[error(
        "`device: {wish}` needs {needs}, but this ONNX Runtime has only {has}\n\nhelp: {help}; or use `device: auto` or `device: cpu`"
    )]
    NotBuilt { wish: Provider, needs: &'static str, has: String, help: &'static str },
    /// The library has the provider but it does not start here.
    #[error(
        "`device: {wish}` does not work on this machine: {reason}\n\nhelp: {help}; or use `device: auto` or `device: cpu`"
    )]
    NotWorking { wish: Provider, reason: String, help: &'static str },
}

/// All, in the order in which `auto` tries them; TensorRT, which it does not try, is last.
const ALL: [Provider; 6] = [
    Provider::Cuda,
    Provider::Coreml,
    Provider::Directml,
    Provider::Openvino,
    Provider::Cpu,
    Provider::Tensorrt,
];

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
            Self::Coreml => "coreml",
            Self::Directml => "directml",
            Self::Openvino => "openvino",
        })
    }
}

impl Provider {
    /// The name that ONNX Runtime gives it.
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => ep::CPU::NAME,
            Self::Cuda => ep::CUDA::NAME,
            Self::Tensorrt => ep::TensorRT::NAME,
            Self::Coreml => ep::CoreML::NAME,
            Self::Directml => ep::DirectML::NAME,
            Self::Openvino => ep::OpenVINO::NAME,
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Cpu => "reinstall ONNX Runtime",
            Self::Cuda => {
                "python3 -m pip install 'onnxruntime-gpu[cuda,cudnn]' and let ORT_DYLIB_PATH name its capi folder; the \
                 CUDA and cuDNN libraries must be on LD_LIBRARY_PATH"
            }
            Self::Tensorrt => {
                "python3 -m pip install onnxruntime-gpu, TensorRT from NVIDIA, and let ORT_DYLIB_PATH name the capi folder"
            }
            Self::Coreml => "CoreML is in the ONNX Runtime for macOS",
            Self::Directml => {
                "python -m pip install onnxruntime-directml on Windows and let ORT_DYLIB_PATH name its capi folder"
            }
            Self::Openvino => {
                "python3 -m pip install onnxruntime-openvino and let ORT_DYLIB_PATH name its capi folder"
            }
        }
    }

    /// What a session registers; nothing for the CPU, which every session has. Strict: where it fails, so does the
    /// session, instead of going on without a word on the CPU.
    pub(crate) fn dispatch(self) -> Option<ExecutionProviderDispatch> {
        let dispatch = match self {
            Self::Cpu => return None,
            Self::Cuda => ep::CUDA::default().build(),
            Self::Tensorrt => ep::TensorRT::default().build(),
            Self::Coreml => ep::CoreML::default().build(),
            Self::Directml => ep::DirectML::default().build(),
            Self::Openvino => ep::OpenVINO::default().build(),
        };
        Some(dispatch.error_on_failure())
    }
}

/// The providers that the loaded library was built with, the best first. It may lack what they need at run time.
pub fn built() -> Result<Vec<Provider>, RuntimeError> {
    runtime()?;
    let has = |provider: &Provider| {
        let found = match provider {
            Provider::Cpu => ep::CPU::is_available(),
            Provider::Cuda => ep::CUDA::is_available(),
            Provider::Tensorrt => ep::TensorRT::is_available(),
            Provider::Coreml => ep::CoreML::is_available(),
            Provider::Directml => ep::DirectML::is_available(),
            Provider::Openvino => ep::OpenVINO::is_available(),
        };
        // A library that cannot list its providers has none but the CPU.
        found.unwrap_or(*provider == Provider::Cpu)
    };
    Ok(ALL.into_iter().filter(has).collect())
}

/// Starts a small model on a provider; the error says what is missing.
pub fn try_out(provider: Provider) -> Result<(), String> {
    let mut graph = GraphBuilder::new("probe", 1, Dims::Two).map_err(|error| error.to_string())?;
    let output = graph.relu(&graph.input()).map_err(|error| error.to_string())?;
    let model = graph.build(&output).map_err(|error| error.to_string())?;
    let mut session =
        Session::from_bytes_on(&model, NonZeroUsize::MIN, provider).map_err(|error| error.to_string())?;
    session.run(&[-1.0, 2.0], &[1, 1, 1, 2]).map(drop).map_err(|error| error.to_string())
}

/// Chooses what to run on.
pub fn choose(wish: Device) -> Result<Chosen, DeviceError> {
    choose_among(wish, &built()?, try_out)
}

/// [`choose`] of a machine whose library has the providers `built`, of which `works` says whether they start.
pub fn choose_among(
    wish: Device,
    built: &[Provider],
    works: impl Fn(Provider) -> Result<(), String>,
) -> Result<Chosen, DeviceError> {
    let explicit = match wish {
        Device::Auto => None,
        Device::Cpu => Some(Provider::Cpu),
        Device::Cuda => Some(Provider::Cuda),
        Device::Tensorrt => Some(Provider::Tensorrt),
        Device::Coreml => Some(Provider::Coreml),
        Device::Directml => Some(Provider::Directml),
        Device::Openvino => Some(Provider::Openvino),
    };
    if let Some(wish) = explicit {
        if !built.contains(&wish) {
            let has: Vec<&str> = built.iter().map(|provider| provider.name()).collect();
            let has = has.join(", ");
            return Err(DeviceError::NotBuilt { wish, needs: wish.name(), has, help: wish.help() });
        }
        if wish != Provider::Cpu {
            works(wish).map_err(|reason| DeviceError::NotWorking { wish, reason, help: wish.help() })?;
        }
        return Ok(Chosen { provider: wish, passed_over: Vec::new() });
    }
    let mut passed_over = Vec::new();
    for &provider in built.iter().filter(|provider| !matches!(provider, Provider::Cpu | Provider::Tensorrt)) {
        match works(provider) {
            Ok(()) => return Ok(Chosen { provider, passed_over }),
            Err(reason) => passed_over.push(format!("{provider} is passed over: {reason}")),
        }
    }
    Ok(Chosen { provider: Provider::Cpu, passed_over })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: [Provider; 4] = [Provider::Cuda, Provider::Openvino, Provider::Cpu, Provider::Tensorrt];

    /// What is taken where only the providers `working` start.
    #[track_caller]
    fn check(
        wish: Device,
        built: &[Provider],
        working: &[Provider],
        expected: Result<(Provider, usize), &str>,
    ) {
        let works = |provider| {
            if working.contains(&provider) { Ok(()) } else { Err(format!("lib{provider}.so is missing")) }
        };
        let found = choose_among(wish, built, works);
        match (found, expected) {
            (Ok(chosen), Ok(expected)) => assert_eq!((chosen.provider, chosen.passed_over.len()), expected),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn auto_takes_the_first_that_works_and_tells_of_those_that_do_not() {
        check(Device::Auto, &MACHINE, &MACHINE, Ok((Provider::Cuda, 0)));
        check(Device::Auto, &MACHINE, &[Provider::Openvino], Ok((Provider::Openvino, 1)));
        check(Device::Auto, &MACHINE, &[], Ok((Provider::Cpu, 2)));
        check(Device::Auto, &[Provider::Cpu], &[], Ok((Provider::Cpu, 0)));
    }

    #[test]
    fn auto_never_takes_tensorrt() {
        check(
            Device::Auto,
            &[Provider::Cpu, Provider::Tensorrt],
            &[Provider::Tensorrt],
            Ok((Provider::Cpu, 0)),
        );
        check(Device::Tensorrt, &MACHINE, &MACHINE, Ok((Provider::Tensorrt, 0)));
    }

    #[test]
    fn an_explicit_wish_is_met_or_refused_but_never_replaced() {
        check(Device::Cuda, &MACHINE, &[Provider::Cuda], Ok((Provider::Cuda, 0)));
        check(Device::Cuda, &MACHINE, &[], Err("does not work on this machine: libcuda.so is missing"));
        check(
            Device::Cuda,
            &[Provider::Cpu],
            &MACHINE,
            Err(
                "`device: cuda` needs CUDAExecutionProvider, but this ONNX Runtime has only CPUExecutionProvider",
            ),
        );
        check(Device::Cpu, &[Provider::Cpu], &[], Ok((Provider::Cpu, 0)));
    }
}
