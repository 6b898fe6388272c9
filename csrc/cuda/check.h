#pragma once
// Errors of the CUDA runtime: launchers hand them up, the bindings turn them into exceptions.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

// Returns an error to the caller of a launcher.
#define PL_TRY(call)                              \
  do {                                            \
    const cudaError_t pl_error = (call);          \
    if (pl_error != cudaSuccess) return pl_error; \
  } while (false)

// Throws std::runtime_error with the place and CUDA's sentence.
#define PL_CHECK(call) ::pulseline::cuda::check((call), __FILE__, __LINE__)

namespace pulseline::cuda {

inline void check(cudaError_t error, const char* file, int line) {
  if (error == cudaSuccess) return;
  const std::string path(file), name = path.substr(path.find_last_of('/') + 1);
  throw std::runtime_error(name + ":" + std::to_string(line) + ": " + cudaGetErrorString(error));
}

}  // namespace pulseline::cuda
