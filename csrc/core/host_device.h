// One spelling for "inline on the host and on the device".
//
// Always inlined on the host: the CPU kernels compile these headers once per instruction set, and an
// out-of-line copy built with AVX-512 must never be the one the linker keeps for an older machine.
#pragma once

#if defined(__CUDACC__)
#define PYGAN_HD __host__ __device__ __forceinline__
#else
#define PYGAN_HD inline __attribute__((always_inline))
#endif
