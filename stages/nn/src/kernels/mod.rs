//! CPU kernels over channels-last slices. Knows no tape and no tensor: slices in, slices out. The sources in `cuda/` are the same
//! operations for CUDA devices.
//!
//! Every sum has one order, fixed by the sizes alone: neither the thread count nor the instruction set changes a bit
//! of any result (vector lanes never meet, multiply-adds round once everywhere). Work is split over rayon's current
//! pool. Sizes are asserted by the safe functions of this module's children before any pointer is formed.

mod activation;
mod conv;
mod conv_weight;
mod elementwise;
mod loss;
mod norm;
mod pool;
mod rows;
mod scratch;
mod simd;
mod tiled_conv;
mod tiles;
mod transposed;

pub(crate) use activation::{activation_backward, activation_forward, combine};
pub(crate) use conv::{Correlation, correlate, correlate_data};
pub(crate) use conv_weight::correlate_weight;
pub(crate) use elementwise::{add_assign, column_sums, concat, split};
pub(crate) use loss::{LossShape, loss_backward, loss_forward};
#[cfg(feature = "cuda")]
pub(crate) use loss::{LossSums, loss_slopes, loss_value};
pub(crate) use norm::{NormShape, norm_act_backward, norm_act_forward};
pub(crate) use pool::{avg_pool_forward, gather_blocks, max_pool_backward, max_pool_forward, spread};
pub(crate) use transposed::{
    Transposed, transposed_data_gradient, transposed_forward, transposed_weight_gradient,
};

/// Upper bound on the parts of a sum; sizes alone decide how many there are, never the thread count.
pub(super) const MAX_PARTS: usize = 16;
/// Values of all parts of a sum together, about: many parts of a large sum would fill the memory.
const PARTS_LEN: usize = 1 << 21;

/// Parts of a sum of `len` values over `units`: the sizes alone decide.
fn parts_of(units: usize, len: usize) -> usize {
    (PARTS_LEN / len).clamp(4, MAX_PARTS).min(units).max(1)
}

/// The instruction set the kernels run on. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isa {
    /// Plain Rust; compiles to NEON on aarch64 and runs on every processor.
    #[default]
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F and VL.
    Avx512,
}

impl Isa {
    /// The fastest set this processor has.
    pub fn detect() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|isa| isa.available()).unwrap_or_default()
    }

    /// Whether this processor has the set.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

/// Defines `fn name(isa, args…)` that runs `body::<Wide, Narrow>(args…)` compiled for `isa`; `Narrow` has 8 lanes.
macro_rules! dispatch {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident = $body:ident($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// `isa` must be available on this processor; the contract of the generic body holds for the arguments.
        $visibility unsafe fn $name(isa: crate::kernels::Isa, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use crate::kernels::simd::x86::{Avx2, Avx512, Avx512Half};

                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2($($arg: $type),*) {
                    // SAFETY: same contract.
                    unsafe { $body::<Avx2, Avx2>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
                unsafe fn avx512($($arg: $type),*) {
                    // SAFETY: same contract.
                    unsafe { $body::<Avx512, Avx512Half>($($arg),*) }
                }
                match isa {
                    // SAFETY: the caller promises that the set is available.
                    crate::kernels::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the caller promises that the set is available.
                    crate::kernels::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    crate::kernels::Isa::Portable => {}
                }
            }
            let _ = isa;
            // SAFETY: same contract; the portable body needs no instruction set.
            unsafe { $body::<crate::kernels::simd::Portable, crate::kernels::simd::Portable>($($arg),*) }
        }
    };
}
use dispatch;
