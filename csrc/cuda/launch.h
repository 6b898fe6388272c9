#pragma once
// Launching kernels. Launchers take POD arguments by value and a stream, return cudaError_t, and
// neither allocate nor synchronise, so that a stream capture may hold them; memory comes from the
// caller.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/check.h"

namespace pulseline::cuda {

constexpr size_t kStaticShared = 48 * 1024;  // what a block gets without asking
constexpr size_t kParameters = 4096;         // bytes of arguments that any toolkit takes

template <class T>
struct Plain {  // keeps a parameter out of template argument deduction
  using type = T;
};

// kernel<<<grid, block, shared, stream>>>(arguments...)
template <class... P>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   typename Plain<P>::type... arguments) {
  static_assert((((sizeof(P) + 7) & ~size_t(7)) + ... + 0) <= kParameters, "too many arguments");
  if (shared > kStaticShared)
    PL_TRY(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)));
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <class A, class B>
constexpr A ceil_div(A a, B b) {
  return (a + A(b) - 1) / A(b);
}
template <class A, class B>
constexpr A round_up(A a, B b) {
  return ceil_div(a, b) * A(b);
}

}  // namespace pulseline::cuda
