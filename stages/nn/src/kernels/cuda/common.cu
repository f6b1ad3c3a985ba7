// What all kernels share. The sources are joined in the order common, correlate, reduce, elementwise, loss and compiled by
// NVRTC when a device is opened. Counts fit 31 bits: the host refuses activations of more values.

#define GLOBAL extern "C" __global__

typedef unsigned char u8;

__device__ __forceinline__ int here() {
    return blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ float below_all() {
    return __int_as_float(0xff800000);  // minus infinity
}

__device__ __forceinline__ float leaky(float z, float slope) {
    return z > 0.0f ? z : z * slope;
}
