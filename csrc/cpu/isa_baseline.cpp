#define PULSELINE_ISA_NAME baseline
#include "cpu/simd_baseline.h"
// clang-format off: the vocabulary comes first
#include "cpu/kernels.inl"
