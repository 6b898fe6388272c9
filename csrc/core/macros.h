#pragma once
// PL_HD marks every function that must mean the same thing on the CPU and on the GPU.
// On the host it is always inlined: an object compiled for one instruction set must not leave a
// copy of a shared function behind for the linker to hand to everybody.
#if defined(__CUDACC__)
#define PL_HD __host__ __device__ __forceinline__
#else
#define PL_HD inline __attribute__((always_inline))
#endif
