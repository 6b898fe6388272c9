#pragma once
// Stands in for CUDA's header when a test compiles kernels for the emulator: the words of the
// language, the built-in functions that the kernels use, and a runtime that launches at once.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))

namespace emulator {
template <Index3 (*get)()>
struct Coordinates {  // members that ask the engine; a launch configuration has fields of these
                      // names
  struct X {
    operator unsigned() const { return get().x; }
  } x;
  struct Y {
    operator unsigned() const { return get().y; }
  } y;
  struct Z {
    operator unsigned() const { return get().z; }
  } z;
};
}  // namespace emulator
constexpr emulator::Coordinates<emulator::thread_index> threadIdx = {};
constexpr emulator::Coordinates<emulator::block_index> blockIdx = {};
constexpr emulator::Coordinates<emulator::block_size> blockDim = {};
constexpr emulator::Coordinates<emulator::grid_size> gridDim = {};
constexpr int warpSize = 32;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) int2 {
  int32_t x, y;
};
struct alignas(16) int4 {
  int32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- built-in functions ----

inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __uint_as_float(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline uint32_t __dp4a(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 32; i += 8) c += (a >> i & 255u) * (b >> i & 255u);
  return c;
}
template <class T>
T __ldg(const T* p) {
  return *p;
}

// ---- warps ----

namespace emulator {
template <class T>
Words pack(T value, uint32_t second = 0) {
  static_assert(sizeof(T) == 4, "four bytes a lane");
  Words w = {};
  std::memcpy(w.v, &value, 4);
  w.v[1] = second;
  return w;
}
template <class T>
T unpack(const Words& w) {
  T value;
  std::memcpy(&value, w.v, 4);
  return value;
}
inline void exchange(uint32_t mask, const Words* in, Words* out) {
  for (int lane = 0; lane < 32; ++lane) {
    const uint32_t from = in[lane].v[1] & 31u;
    // A lane outside the mask holds nothing to read.
    out[lane].v[0] = mask >> from & 1u ? in[from].v[0] : 0xffffffffu;
  }
}
template <class F>
void reduce(uint32_t mask, const Words* in, Words* out, F combine) {
  uint32_t total = 0;
  bool first = true;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1u) {
      total = first ? in[lane].v[0] : combine(total, in[lane].v[0]);
      first = false;
    }
  for (int lane = 0; lane < 32; ++lane) out[lane].v[0] = total;
}
}  // namespace emulator

template <class T>
T __shfl_sync(uint32_t mask, T value, int lane) {
  return emulator::unpack<T>(emulator::collective(
      "shfl", mask, emulator::pack(value, uint32_t(lane)), emulator::exchange));
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits) {
  const uint32_t lane = threadIdx.x % 32 ^ uint32_t(bits);
  return emulator::unpack<T>(
      emulator::collective("shfl_xor", mask, emulator::pack(value, lane), emulator::exchange));
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta) {
  const uint32_t me = threadIdx.x % 32, lane = me >= delta ? me - delta : me;
  return emulator::unpack<T>(
      emulator::collective("shfl_up", mask, emulator::pack(value, lane), emulator::exchange));
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta) {
  const uint32_t me = threadIdx.x % 32, lane = me + delta < 32 ? me + delta : me;
  return emulator::unpack<T>(
      emulator::collective("shfl_down", mask, emulator::pack(value, lane), emulator::exchange));
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate) {
  const auto ballot = [](uint32_t m, const emulator::Words* in, emulator::Words* out) {
    uint32_t bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= (m >> lane & in[lane].v[0] & 1u) << lane;
    for (int lane = 0; lane < 32; ++lane) out[lane].v[0] = bits;
  };
  return emulator::collective("ballot", mask, emulator::pack(uint32_t(predicate != 0)), ballot)
      .v[0];
}
inline int __any_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(uint32_t mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
inline uint32_t __reduce_max_sync(uint32_t mask, uint32_t value) {
  const auto largest = [](uint32_t m, const emulator::Words* in, emulator::Words* out) {
    emulator::reduce(m, in, out, [](uint32_t a, uint32_t b) { return a > b ? a : b; });
  };
  return emulator::collective("reduce_max", mask, emulator::pack(value), largest).v[0];
}
inline uint32_t __reduce_add_sync(uint32_t mask, uint32_t value) {
  const auto sum = [](uint32_t m, const emulator::Words* in, emulator::Words* out) {
    emulator::reduce(m, in, out, [](uint32_t a, uint32_t b) { return a + b; });
  };
  return emulator::collective("reduce_add", mask, emulator::pack(value), sum).v[0];
}
inline void __syncwarp(uint32_t mask = 0xffffffffu) {
  emulator::collective("syncwarp", mask, {},
                       [](uint32_t, const emulator::Words*, emulator::Words*) {});
}
inline void __syncthreads() { emulator::barrier(); }
inline int __syncthreads_or(int predicate) {  // of every thread of the block
  static int any = 0;
  emulator::barrier();
  any = 0;
  emulator::barrier();
  any |= predicate != 0;
  emulator::barrier();
  return any;
}

// ---- atomics: one thread runs at a time ----

template <class T>
T atomicAdd(T* p, T v) {
  const T old = *p;
  *p = old + v;
  return old;
}
template <class T>
T atomicMin(T* p, T v) {
  const T old = *p;
  *p = v < old ? v : old;
  return old;
}
template <class T>
T atomicMax(T* p, T v) {
  const T old = *p;
  *p = v > old ? v : old;
  return old;
}
template <class T>
T atomicOr(T* p, T v) {
  const T old = *p;
  *p = old | v;
  return old;
}

// ---- the runtime ----

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? emulator::complaint()
         : error == cudaSuccess          ? "no error"
                                         : "invalid argument";
}
using cudaStream_t = struct Stream*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(P...), A... arguments) {
  const dim3 g = c->gridDim, b = c->blockDim;
  // The limits of every GPU that this project supports.
  if (!g.x || !g.y || !g.z || g.y > 65535 || g.z > 65535 || !b.x || b.x * b.y * b.z > 1024 ||
      c->dynamicSmemBytes > 99 * 1024)
    return cudaErrorInvalidConfiguration;
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  } call = {kernel, std::tuple<P...>(arguments...)};
  const auto body = [](void* context) {
    Call& it = *static_cast<Call*>(context);
    std::apply(it.kernel, it.arguments);
  };
  const bool done =
      emulator::run({g.x, g.y, g.z}, {b.x, b.y, b.z}, c->dynamicSmemBytes, body, &call);
  return done ? cudaSuccess : cudaErrorLaunchFailure;
}
