//! Vectors of f32 as a trait, so that each kernel is written once. A lane never meets another lane, and `fma`
//! rounds once on every implementation: results are the same bits whatever the width.
#![expect(unsafe_code, reason = "intrinsics over raw pointers")]
#![expect(clippy::inline_always, reason = "bodies must be compiled inside their target-feature wrapper")]

/// A vector type of one instruction set.
///
/// # Safety
/// The functions may only be called where the instruction set is present, and pointers must be valid for `LANES`
/// values (any alignment).
pub(super) trait Simd: Copy {
    const LANES: usize;
    /// Rows of accumulators that fit the registers beside `vectors` weight vectors.
    fn rows(vectors: usize) -> usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self · factor + addend`, rounded once.
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
}

/// Eight lanes in plain Rust, for every processor.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Simd for Portable {
    const LANES: usize = 8;

    fn rows(vectors: usize) -> usize {
        8 / vectors
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises eight readable values.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises eight writable values.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::Simd;

    /// AVX2 with FMA: 16 registers of 8 lanes.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx2(__m256);

    /// AVX-512F: 32 registers of 16 lanes.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx512(__m512);

    /// The 8-lane form of AVX-512VL: 32 registers and broadcasts folded into the multiply.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx512Half(__m256);

    macro_rules! simd {
        ($name:ident, $lanes:literal, $rows:expr, $splat:ident, $load:ident, $store:ident, $fma:ident) => {
            impl Simd for $name {
                const LANES: usize = $lanes;

                fn rows(vectors: usize) -> usize {
                    let rows: fn(usize) -> usize = $rows;
                    rows(vectors)
                }

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller promises the instruction set.
                    Self(unsafe { $splat(value) })
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the caller promises the instruction set and the values.
                    Self(unsafe { $load(from) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller promises the instruction set and the values.
                    unsafe { $store(to, self.0) }
                }

                #[inline(always)]
                unsafe fn fma(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: the caller promises the instruction set.
                    Self(unsafe { $fma(self.0, factor.0, addend.0) })
                }
            }
        };
    }

    simd!(
        Avx2,
        8,
        |vectors| if vectors == 1 { 12 } else { 6 },
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps
    );
    simd!(Avx512, 16, |_| 12, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);
    simd!(Avx512Half, 8, |_| 12, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);
}
