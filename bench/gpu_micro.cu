// What one GPU can do of the things the update is made of: instructions a clock and multiprocessor
// of bit and bf16 tensor core products and of popcounts, and the bytes a second that its blocks
// stream out of the second-level cache. Prints one line of JSON.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "cuda/device.h"

namespace {

constexpr int kThreads = 256, kRounds = 4096, kChains = 4;

__global__ void bit_products(uint32_t* out) {
  uint32_t c[kChains][4] = {};
  const uint32_t a[4] = {threadIdx.x, threadIdx.x * 3, ~threadIdx.x, 7};
  for (int i = 0; i < kRounds; ++i)
#pragma unroll
    for (int k = 0; k < kChains; ++k)
      pulseline::cuda::bit_mma(c[k], a, threadIdx.x + uint32_t(k), uint32_t(i));
  uint32_t sum = 0;
  for (int k = 0; k < kChains; ++k) sum += c[k][0] + c[k][1] + c[k][2] + c[k][3];
  if (sum == 0xdeadbeefu) *out = sum;
}

__global__ void bf16_products(uint32_t* out) {
  float c[kChains][4] = {};
  const uint32_t a0 = 0x3f803f80u + threadIdx.x, a1 = 0x3f803f80u;
  for (int i = 0; i < kRounds; ++i)
#pragma unroll
    for (int k = 0; k < kChains; ++k)
      asm volatile(
          "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5},{%6},"
          "{%0,%1,%2,%3};"
          : "+f"(c[k][0]), "+f"(c[k][1]), "+f"(c[k][2]), "+f"(c[k][3])
          : "r"(a0), "r"(a1), "r"(uint32_t(i)));
  float sum = 0;
  for (int k = 0; k < kChains; ++k) sum += c[k][0] + c[k][1] + c[k][2] + c[k][3];
  if (sum == 0.123f) *out = 1;
}

__global__ void popcounts(uint32_t* out) {
  uint32_t x[2 * kChains];
  for (int k = 0; k < 2 * kChains; ++k) x[k] = threadIdx.x * 77u + uint32_t(k);
  for (int i = 0; i < kRounds; ++i)
#pragma unroll
    for (int k = 0; k < 2 * kChains; ++k) x[k] = uint32_t(__popc(x[k])) | 0x5a5a5a00u;
  uint32_t sum = 0;
  for (int k = 0; k < 2 * kChains; ++k) sum += x[k];
  if (sum == 0xdeadbeefu) *out = sum;
}

// Every block reads all `n` vectors, each thread four at a time.
__global__ void stream(const uint4* from, int n, uint32_t* out) {
  uint32_t sum = 0;
  for (int i = int(threadIdx.x); i + 3 * kThreads < n; i += 4 * kThreads) {
    const uint4 a = __ldcg(from + i), b = __ldcg(from + i + kThreads);
    const uint4 c = __ldcg(from + i + 2 * kThreads), d = __ldcg(from + i + 3 * kThreads);
    sum += a.x ^ b.y ^ c.z ^ d.w;
  }
  if (sum == 0xdeadbeefu) *out = sum;
}

template <class Launch>
double seconds(Launch launch) {  // median of nine, after two
  cudaEvent_t first, last;
  cudaEventCreate(&first);
  cudaEventCreate(&last);
  std::vector<float> ms;
  for (int i = 0; i < 11; ++i) {
    cudaEventRecord(first);
    launch();
    cudaEventRecord(last);
    cudaEventSynchronize(last);
    float t = 0;
    cudaEventElapsedTime(&t, first, last);
    if (i > 1) ms.push_back(t);
  }
  std::sort(ms.begin(), ms.end());
  return double(ms[ms.size() / 2]) * 1e-3;
}

}  // namespace

int main() {
  cudaDeviceProp gpu;
  int khz = 0;
  if (cudaGetDeviceProperties(&gpu, 0) != cudaSuccess) return 1;
  cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, 0);
  uint32_t* out;
  uint4* memory;
  const int bytes = 16 << 20;
  cudaMalloc(&out, 4);
  cudaMalloc(&memory, bytes);
  cudaMemset(memory, 0, bytes);
  const int blocks = 4 * gpu.multiProcessorCount;
  const double warps = double(blocks) * kThreads / 32;
  const double clocks = double(gpu.multiProcessorCount) * khz * 1e3;
  const double bits = seconds([&] { bit_products<<<blocks, kThreads>>>(out); });
  const double bf16 = seconds([&] { bf16_products<<<blocks, kThreads>>>(out); });
  const double pops = seconds([&] { popcounts<<<blocks, kThreads>>>(out); });
  const double l2 = seconds([&] { stream<<<blocks, kThreads>>>(memory, bytes / 16, out); });
  if (cudaDeviceSynchronize() != cudaSuccess) return 1;
  std::printf(
      "{\"gpu\": \"%s\", \"multiprocessors\": %d, \"nominal_ghz\": %.3f, "
      "\"bit_mma_per_clock\": %.3f, \"bf16_mma_per_clock\": %.3f, \"popc_lanes_per_clock\": %.2f, "
      "\"l2_tb_per_s\": %.2f}\n",
      gpu.name, gpu.multiProcessorCount, khz * 1e-6, warps * kRounds * kChains / (bits * clocks),
      warps * kRounds * kChains / (bf16 * clocks),
      warps * 32 * kRounds * 2 * kChains / (pops * clocks), double(blocks) * bytes / l2 * 1e-12);
  return 0;
}
