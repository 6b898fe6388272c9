#define PULSELINE_ISA_NAME avx512
#include "cpu/simd_avx512.h"
// clang-format off: the vocabulary comes first
#include "cpu/kernels.inl"
