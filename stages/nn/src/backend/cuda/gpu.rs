//! A CUDA device: the kernels, loaded; its memory; launches. All work is on the default stream, dfdx's too, so that
//! it runs in the order it was asked for.
#![expect(unsafe_code, reason = "launches kernels on device memory")]

use std::any::Any;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{
    CudaDevice, CudaFunction, CudaSlice, DevicePtr, DeviceRepr, DriverError, LaunchAsync, LaunchConfig, sys,
};
use dfdx::prelude::*;
use dfdx::tensor_ops::{Momentum, SgdConfig, WeightDecay};

use super::super::slot::Gather;
use crate::NnError;

/// Threads of every block.
pub(super) const THREADS: usize = 256;
const MODULE: &str = "pipe";
const SOURCE: &str = concat!(
    include_str!("../../kernels/cuda/common.cu"),
    include_str!("../../kernels/cuda/correlate.cu"),
    include_str!("../../kernels/cuda/reduce.cu"),
    include_str!("../../kernels/cuda/elementwise.cu"),
    include_str!("../../kernels/cuda/loss.cu"),
);
const KERNELS: [&str; 42] = [
    "activate",
    "activation_slope",
    "add",
    "add_assign",
    "add_chunks",
    "add_totals",
    "add_weight_splits",
    "column_sums",
    "concat",
    "correlate_16",
    "correlate_32",
    "correlate_64",
    "correlate_8",
    "correlate_weight_16",
    "correlate_weight_32",
    "correlate_weight_64",
    "correlate_weight_8",
    "gather_blocks",
    "given_statistics",
    "join_splits",
    "loss_rows",
    "loss_slope",
    "magnitude_sums",
    "max_pool",
    "max_pool_slope",
    "moment_sums",
    "moments",
    "multiply_values",
    "norm_apply",
    "norm_data_slope",
    "norm_means",
    "norm_slope_sums",
    "norm_statistics",
    "penalty_slope",
    "prelu_sums",
    "put_total",
    "region_sums",
    "scale_assign",
    "scale_totals",
    "split",
    "spread_blocks",
    "square_sums",
];

/// What unwinds a training when the device cannot go on, as when its memory is full: the operations of a network return values.
#[derive(Debug)]
pub struct DeviceFailure(String);

impl DeviceFailure {
    pub(super) fn unwind(problem: String) -> ! {
        // No panic: nothing is printed, and whoever trains catches it.
        std::panic::resume_unwind(Box::new(Self(problem)))
    }

    /// The error behind a caught unwinding, if it is one of these, or a panic of dfdx over an error of the driver.
    pub(crate) fn caught(payload: Box<dyn Any + Send>) -> Result<NnError, Box<dyn Any + Send>> {
        let problem = match payload.downcast::<Self>() {
            Ok(failure) => failure.0,
            Err(payload) => match payload.downcast_ref::<String>() {
                Some(text) if text.contains("CUDA_ERROR") => advised(text),
                _ => return Err(payload),
            },
        };
        Ok(NnError::Device { action: "training", problem })
    }
}

/// What went wrong, and what helps where that is known.
fn advised(text: &str) -> String {
    if text.contains("CUDA_ERROR_OUT_OF_MEMORY") {
        let advice = "a smaller patch or batch, or a narrower network, needs less";
        return format!("its memory is full; {advice}");
    }
    text.to_owned()
}

/// Errors of the driver that leave the device in use.
const PASSING: [&str; 6] =
    ["OUT_OF_MEMORY", "INVALID_VALUE", "OUT_OF_RESOURCES", "NOT_FOUND", "NOT_SUPPORTED", "INITIALIZ"];

/// The value, or the end of the training: of the process, where the device is past use. Every later call fails then, those
/// that free memory too, and cudarc panics in these: nothing could be unwound.
#[expect(clippy::exit, clippy::panic, reason = "the state is on disk, and there is nothing to go back to")]
pub(super) fn done<R, E: std::fmt::Debug>(result: Result<R, E>) -> R {
    result.unwrap_or_else(|error| {
        let text = format!("{error:?}");
        if text.contains("CUDA_ERROR") && !PASSING.iter().any(|passing| text.contains(passing)) {
            // Told as a panic is, without what unwinds after it.
            let _ = std::panic::catch_unwind(|| {
                panic!(
                    "the CUDA device failed and cannot be used by this process any more: {text}; run again: a training goes \
                     on from its last checkpoint"
                )
            });
            std::process::exit(1);
        }
        DeviceFailure::unwind(advised(&text))
    })
}

/// A number of things as kernels count them.
pub(super) fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or_else(|_| {
        DeviceFailure::unwind(format!(
            "{count} values in one activation, and more than 2^31 are not counted on CUDA: a smaller patch or batch has fewer"
        ))
    })
}

/// A device with the kernels.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) dfdx: Cuda,
    driver: Arc<CudaDevice>,
}

/// Device memory; freed in the order of the stream, hence after all work that was asked for before.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: CudaSlice<u8>,
    bytes: usize,
    home: Rc<Gpu>,
}

/// What a kernel takes: a tuple of plain numbers, plain structs and addresses.
pub(super) trait Parameters {
    /// # Safety
    /// As for [`LaunchAsync::launch`].
    unsafe fn launch(self, function: CudaFunction, config: LaunchConfig) -> Result<(), DriverError>;
}

impl<P> Parameters for P
where
    CudaFunction: LaunchAsync<P>,
{
    unsafe fn launch(self, function: CudaFunction, config: LaunchConfig) -> Result<(), DriverError> {
        // SAFETY: the same contract.
        unsafe { LaunchAsync::launch(function, config, self) }
    }
}

impl Gpu {
    /// Compiles and loads the kernels.
    pub(super) fn open(dfdx: Cuda) -> Result<Self, String> {
        let said = |what: &str, error: &dyn std::fmt::Debug| format!("{what}: {error:?}");
        let first = Storage::<f32>::try_alloc_len(&dfdx, 1).map_err(|error| said("no memory", &error))?;
        let driver = first.device();
        keep_freed_memory(&driver).map_err(|error| said("no memory pool", &error))?;
        let compiled =
            cudarc::nvrtc::compile_ptx(SOURCE).map_err(|error| said("the kernels do not compile", &error))?;
        driver
            .load_ptx(compiled, MODULE, &KERNELS)
            .map_err(|error| said("the kernels do not load (a driver older than NVRTC?)", &error))?;
        Ok(Self { dfdx, driver })
    }

    /// Memory for `count` values with unspecified contents.
    pub(super) fn take<V>(self: &Rc<Self>, count: usize) -> Buffer {
        let bytes = count * size_of::<V>();
        // SAFETY: whoever takes memory writes it before reading, as documented.
        let memory = done(unsafe { self.driver.alloc::<u8>(bytes.max(1)) });
        Buffer { memory, bytes, home: self.clone() }
    }

    pub(super) fn upload<V: DeviceRepr + Copy>(self: &Rc<Self>, values: &[V]) -> Buffer {
        let buffer = self.take::<V>(values.len());
        if !values.is_empty() {
            done(self.driver.bind_to_thread());
            // SAFETY: the buffer holds as many bytes; the copy is over when the call returns.
            done(unsafe { cudarc::driver::result::memcpy_htod_sync(buffer.at().0, values) });
        }
        buffer
    }

    /// A copy of what a dfdx tensor holds. dfdx lends no view of device memory, but its update for plain gradient descent with
    /// rate 0, decay 1 and no momentum writes the parameter to the velocity.
    pub(super) fn values<S: Shape>(
        self: &Rc<Self>,
        tensor: &Tensor<S, f32, Cuda>,
    ) -> <Cuda as Storage<f32>>::Vec {
        let count = tensor.shape().num_elements();
        let mut values = done(self.dfdx.try_alloc_len(count));
        let nothing = done(self.dfdx.try_alloc_len(count));
        let reading = SgdConfig {
            lr: 0.0,
            momentum: Some(Momentum::Classic(0.0)),
            weight_decay: Some(WeightDecay::L2(1.0)),
        };
        done(reading.try_update(&mut tensor.clone(), &mut values, &nothing));
        values
    }

    /// Copies `count` values between pieces of device memory.
    pub(super) fn copy(&self, from: Address<'_>, to: Address<'_>, count: usize) {
        done(self.driver.bind_to_thread());
        // SAFETY: callers pass memory of at least `count` values each.
        done(unsafe {
            cudarc::driver::result::memcpy_dtod_async(
                to.0,
                from.0,
                count * size_of::<f32>(),
                std::ptr::null_mut(),
            )
        });
    }

    /// Launches a kernel on `grid` blocks with `shared` bytes; nothing where the grid is empty.
    pub(super) fn launch(&self, kernel: &str, grid: [usize; 3], shared: usize, parameters: impl Parameters) {
        if grid.contains(&0) {
            return;
        }
        let [x, y, z] = grid.map(|blocks| u32::try_from(blocks).expect("fewer than 2^32 blocks"));
        let function =
            self.driver.get_func(MODULE, kernel).expect("internal error: a kernel that is not listed");
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (THREADS as u32, 1, 1),
            shared_mem_bytes: u32::try_from(shared).expect("less shared memory"),
        };
        // SAFETY: the callers, all in this module, pass what the kernel of that name takes.
        done(unsafe { parameters.launch(function, config) });
    }

    /// A kernel with one thread for each of `count` values.
    pub(super) fn each(&self, kernel: &str, count: usize, parameters: impl Parameters) {
        self.launch(kernel, [count.div_ceil(THREADS), 1, 1], 0, parameters);
    }
}

/// An address on the device, as long as what lives there. A bare number would outlive it: memory that is free is handed out
/// again at once.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Address<'a>(u64, PhantomData<&'a ()>);

// SAFETY: one number of eight bytes, a pointer to the kernels.
unsafe impl DeviceRepr for Address<'_> {}

impl Address<'_> {
    /// What kernels take for "none".
    pub(super) const NONE: Self = Self(0, PhantomData);
}

/// Lets the driver's pool keep what is freed, ours and dfdx's, instead of giving it back at the next wait.
fn keep_freed_memory(device: &CudaDevice) -> Result<(), DriverError> {
    let mut pool = std::ptr::null_mut();
    let mut most = u64::MAX;
    let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the device is open; the driver writes the pool and reads the number during the calls.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, *device.cu_device()).result()?;
        sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut most).cast()).result()
    }
}

impl Buffer {
    /// Where it is on the device.
    pub(super) fn at(&self) -> Address<'_> {
        Address(*self.memory.device_ptr(), PhantomData)
    }

    /// Its length in values of four bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes / size_of::<f32>()
    }

    /// Waits for the device and reads what is there.
    pub(super) fn read<V: DeviceRepr + Copy + Default>(&self) -> Vec<V> {
        let mut values = vec![V::default(); self.bytes / size_of::<V>()];
        if !values.is_empty() {
            done(self.home.driver.bind_to_thread());
            // SAFETY: the buffer holds as many values; the copy is over when the call returns.
            done(unsafe { cudarc::driver::result::memcpy_dtoh_sync(&mut values, self.at().0) });
        }
        values
    }

    pub(super) fn copied(&self) -> Self {
        let copy = self.home.take::<u8>(self.bytes);
        self.home.copy(self.at(), copy.at(), self.len());
        copy
    }
}

impl Gather for Buffer {
    fn add_assign(&mut self, more: &Self) {
        let count = self.len();
        self.home.each("add_assign", count, (int(count), self.at(), more.at()));
    }
}

/// Where memory of dfdx is.
pub(super) fn at(memory: &<Cuda as Storage<f32>>::Vec) -> Address<'_> {
    Address(*DevicePtr::device_ptr(memory), PhantomData)
}
