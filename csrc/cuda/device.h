#pragma once
// What kernels use beyond C++ and CUDA's built-in functions: shared memory, asynchronous copies and
// tensor core instructions. The tests compile kernels against tests/emulator/cuda/device.h instead.
#include <cuda_runtime.h>

#include <cstdint>

#define PL_DEVICE __device__ __forceinline__

// Shared memory of a block: `count` elements, 16-byte aligned; the whole dynamic part.
#define PL_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define PL_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char pl_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(pl_dynamic_shared)

// Whether and.popc on single bits is an instruction here: sm_100 and later emulate it.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define PL_NATIVE_BIT_MMA 0
#else
#define PL_NATIVE_BIT_MMA 1
#endif

namespace pulseline::cuda {

// A value that the compiler does not know: stays in a register.
PL_DEVICE uint32_t opaque(uint32_t x) {
  asm("" : "+r"(x));
  return x;
}
// The same; what follows from it is computed where it stands, not kept in registers through a loop.
PL_DEVICE uint32_t here(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Where something lies in shared memory, in bytes; kept in a register, not worked out again.
using SharedAddress = uint32_t;
PL_DEVICE SharedAddress shared_address(const void* p) {
  return opaque(uint32_t(__cvta_generic_to_shared(p)));
}

// Copies 16 (8) bytes to shared memory some time before the wait; both ends aligned to 16 (8).
PL_DEVICE void copy16_async(SharedAddress to, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
PL_DEVICE void copy8_async(SharedAddress to, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(global) : "memory");
}
// The same with 16 (4) bytes of room, of which the first `bytes`, maybe none, are copied and the
// rest becomes zero.
PL_DEVICE void copy16_filled(SharedAddress to, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes)
               : "memory");
}
PL_DEVICE void copy4_filled(SharedAddress to, const void* global, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(bytes)
               : "memory");
}
// Ends a group of this thread's copies.
PL_DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N of this thread's groups are under way; other threads need a barrier too.
template <int N>
PL_DEVICE void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// c += popc(a & b) over 256 bits: a 16 rows, b 8 columns. With g = lane / 4 and t = lane % 4 a lane
// holds a: words t of rows g and g + 8, then words 4 + t of both; b: words t and 4 + t of column g;
// c: rows g (two) and g + 8 (two), columns 2t and 2t + 1.
PL_DEVICE void bit_mma(uint32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  uint32_t d[4];  // apart from c: one in place would be copied before and after
  asm volatile(
      "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]),
        "r"(c[2]), "r"(c[3]));
  c[0] = d[0];
  c[1] = d[1];
  c[2] = d[2];
  c[3] = d[3];
}

// c = a b with bf16 factors, two in a word: a 16 rows of 8, b 8 columns. With g = lane / 4 and t =
// lane % 4 a lane holds a: words t of rows g and g + 8; b: word t of column g; c as above.
PL_DEVICE void bf16_mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3},{%4,%5},{%6},{%7,%7,%7,%7};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a0), "r"(a1), "r"(b), "f"(0.0f));
}

// d = a b + c with tf32 factors, which are floats whose low 13 bits are ignored: a 16 rows of 8, b
// 8 columns. With g and t as above a lane holds a: column t of rows g and g + 8, then column 4 + t
// of both; b: rows t and 4 + t of column g; c and d as above. Products are exact, sums truncated.
PL_DEVICE void tf32_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                        const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
}

// c += a b with halves, two in a word: a 16 rows of 16, b 8 columns. With g = lane / 4 and t =
// lane % 4 a lane holds a: words t of rows g and g + 8, then words 4 + t of both; b: words t and
// 4 + t of column g; c as above.
PL_DEVICE void f16_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  float d[4];
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
  c[0] = d[0];
  c[1] = d[1];
  c[2] = d[2];
  c[3] = d[3];
}

// Halves: the nearest one's bits; two products, two differences.
PL_DEVICE uint32_t half_bits(float x) {
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}
PL_DEVICE uint32_t half_mul(uint32_t a, uint32_t b) {
  uint32_t c;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
  return c;
}
PL_DEVICE uint32_t half_sub(uint32_t a, uint32_t b) {
  uint32_t c;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
  return c;
}

}  // namespace pulseline::cuda
