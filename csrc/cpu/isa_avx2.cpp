#define PULSELINE_ISA_NAME avx2
#include "cpu/simd_avx2.h"
// clang-format off: the vocabulary comes first
#include "cpu/kernels.inl"
