//! What a training runs on: the processor, or a CUDA device where the program was built for one and there is one. A wish
//! by name is met or refused with the reason; only `auto` looks further.

use std::str::FromStr;

use crate::NnError;
use crate::progress::{Progress, Trained};
use crate::train::{TrainJob, train};

/// What a training shall run on: `auto`, `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// A CUDA device that works, else the processor.
    Auto,
    /// The processor: the same bits on every machine.
    #[default]
    Cpu,
    /// A CUDA device; the first unless numbered.
    Cuda(Option<usize>),
}

/// What a training runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

/// The processor that was taken, and why another was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub processor: Processor,
    /// Why `auto` did not take a CUDA device.
    pub passed_over: Option<String>,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            other => match other.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(number)) => Ok(Self::Cuda(Some(number))),
                _ => Err(format!("`{other}` is no device; write auto, cpu, cuda or cuda:1")),
            },
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(number)) => write!(f, "cuda:{number}"),
        }
    }
}

impl std::fmt::Display for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu ({:?} kernels)", crate::Isa::detect()),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Device {
    /// Finds what there is of the wish; `usual` is the CUDA device where none is numbered.
    ///
    /// # Errors
    /// [`NnError::NoDevice`] when a CUDA device was asked for and cannot be used.
    pub fn choose(self, usual: usize) -> Result<Chosen, NnError> {
        self.choose_among(usual, try_cuda)
    }

    fn choose_among(
        self,
        usual: usize,
        try_cuda: impl Fn(usize) -> Result<(), String>,
    ) -> Result<Chosen, NnError> {
        let number = match self {
            Self::Cpu => return Ok(Chosen { processor: Processor::Cpu, passed_over: None }),
            Self::Auto => usual,
            Self::Cuda(number) => number.unwrap_or(usual),
        };
        match (try_cuda(number), self) {
            (Ok(()), _) => Ok(Chosen { processor: Processor::Cuda(number), passed_over: None }),
            (Err(reason), Self::Auto) => {
                Ok(Chosen { processor: Processor::Cpu, passed_over: Some(format!("no CUDA: {reason}")) })
            }
            (Err(reason), _) => Err(NnError::NoDevice { wish: self.to_string(), reason }),
        }
    }
}

/// [`train`] on the processor that was chosen.
///
/// # Errors
/// Those of [`train`]; [`NnError::NoDevice`] when the device is gone.
pub fn train_with(
    processor: Processor,
    job: &TrainJob<'_>,
    observer: &mut dyn FnMut(&Progress),
    should_stop: &dyn Fn() -> bool,
) -> Result<Trained, NnError> {
    match processor {
        Processor::Cpu => train(job, observer, should_stop),
        #[cfg(feature = "cuda")]
        Processor::Cuda(number) => {
            let backend = open_cuda(number)
                .map_err(|reason| NnError::NoDevice { wish: processor.to_string(), reason })?;
            // An operation that the device cannot do unwinds; nothing of the training is used after that.
            let training =
                std::panic::AssertUnwindSafe(|| crate::train::train_on(backend, job, observer, should_stop));
            std::panic::catch_unwind(training).unwrap_or_else(|payload| {
                Err(crate::DeviceFailure::caught(payload)
                    .unwrap_or_else(|payload| std::panic::resume_unwind(payload)))
            })
        }
        #[cfg(not(feature = "cuda"))]
        Processor::Cuda(_) => {
            Err(NnError::NoDevice { wish: processor.to_string(), reason: NOT_BUILT.to_owned() })
        }
    }
}

#[cfg(not(feature = "cuda"))]
const NOT_BUILT: &str =
    "this program was built without CUDA (`cargo build --release --features cuda`, with nvcc on PATH)";

/// Why a CUDA device cannot be used, for `auto` and for people.
///
/// # Errors
/// The reason.
pub fn try_cuda(number: usize) -> Result<(), String> {
    #[cfg(feature = "cuda")]
    return cuda::probe(number);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = number;
        Err(NOT_BUILT.to_owned())
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use cudarc::driver::sys::CUdevice_attribute;
    use cudarc::driver::{CudaDevice, result};

    /// Whether driver, device and run-time compiler are there. dfdx ends the process where one of them is not, so each is
    /// asked first.
    pub(super) fn probe(number: usize) -> Result<(), String> {
        result::init().map_err(|error| format!("the NVIDIA driver does not start: {error:?}"))?;
        let count = result::device::get_count().map_err(|error| format!("no device is told: {error:?}"))?;
        let count = usize::try_from(count).unwrap_or_default();
        if number >= count {
            let listed = match count {
                0 => "no device".to_owned(),
                1 => "cuda:0 alone".to_owned(),
                more => format!("cuda:0 to cuda:{}", more - 1),
            };
            return Err(format!("there is {listed}"));
        }
        let device =
            CudaDevice::new(number).map_err(|error| format!("cuda:{number} cannot be opened: {error:?}"))?;
        // dfdx cannot open a device without.
        let pools = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
        if device.attribute(pools).is_ok_and(|supported| supported == 0) {
            return Err(format!("cuda:{number} or its driver has no memory pools (CUDA 11.2)"));
        }
        // The kernels are compiled on the machine that runs them.
        let compiled = cudarc::nvrtc::compile_ptx("extern \"C\" __global__ void nothing() {}")
            .map_err(|error| format!("the run-time compiler (NVRTC) does not work: {error:?}"))?;
        device.load_ptx(compiled, "probe", &["nothing"]).map_err(|error| {
            format!("the driver does not take what NVRTC compiles (is it older than NVRTC?): {error:?}")
        })?;
        // dfdx opens it whether it is used or not.
        cudarc::cublas::CudaBlas::new(device)
            .map(|_| ())
            .map_err(|error| format!("cuBLAS does not start: {error:?}"))
    }
}

/// Opens a CUDA device and loads the kernels onto it.
///
/// # Errors
/// Why it cannot be used.
#[cfg(feature = "cuda")]
pub fn open_cuda(number: usize) -> Result<crate::CudaBackend, String> {
    cuda::probe(number)?;
    let device = dfdx::prelude::Cuda::try_build(number, 0)
        .map_err(|error| format!("cuda:{number} cannot be opened: {error:?}"))?;
    crate::CudaBackend::new(device).map_err(|reason| format!("cuda:{number} cannot be used: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(text: &str, expected: Option<Device>) {
        let found = text.parse::<Device>();
        assert_eq!(found.clone().ok(), expected, "{found:?}");
        if let Some(device) = expected {
            assert_eq!(device.to_string(), text);
        }
    }

    #[test]
    fn a_device_is_written_as_it_is_read() {
        parsed("auto", Some(Device::Auto));
        parsed("cpu", Some(Device::Cpu));
        parsed("cuda", Some(Device::Cuda(None)));
        parsed("cuda:3", Some(Device::Cuda(Some(3))));
        for wrong in ["", "CUDA", "cuda:", "cuda:-1", "cuda:x", "gpu"] {
            parsed(wrong, None);
        }
    }

    #[track_caller]
    fn chosen(device: Device, works: Option<usize>, expected: Result<(Processor, Option<&str>), &str>) {
        let there =
            |number| if works == Some(number) { Ok(()) } else { Err("there is no device".to_owned()) };
        let found = device.choose_among(1, there).map_err(|error| error.to_string());
        let expected = expected.map_err(str::to_owned).map(|(processor, passed_over)| Chosen {
            processor,
            passed_over: passed_over.map(str::to_owned),
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_wish_is_met_or_refused_and_auto_says_what_it_passed_over() {
        chosen(Device::Cpu, Some(1), Ok((Processor::Cpu, None)));
        chosen(Device::Auto, Some(1), Ok((Processor::Cuda(1), None)));
        chosen(Device::Auto, Some(0), Ok((Processor::Cpu, Some("no CUDA: there is no device"))));
        chosen(Device::Cuda(None), Some(1), Ok((Processor::Cuda(1), None)));
        chosen(Device::Cuda(Some(0)), Some(0), Ok((Processor::Cuda(0), None)));
        chosen(
            Device::Cuda(Some(2)),
            Some(1),
            Err(
                "`device: cuda:2` cannot be used: there is no device; `device: auto` takes the processor then, `cpu` \
                 always",
            ),
        );
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn without_cuda_the_reason_names_the_feature() {
        let error = Device::Cuda(None).choose(0).unwrap_err().to_string();
        assert!(error.contains("built without CUDA (`cargo build --release --features cuda`"), "{error}");
    }
}
