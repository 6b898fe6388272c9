// Which kernel table runs: the best that this processor supports, or the one that
// PULSELINE_ISA = baseline | avx2 | avx512 names (avx512f: AVX-512 without VPOPCNTDQ).
#include <cstdlib>
#include <cstring>

#include "cpu/kernels.h"

namespace pulseline::cpu {
namespace {

struct Entry {
  const KernelTable* table;
  bool supported;
};

constexpr int kEntries = 4;

const Entry* entries() {  // best first
#if defined(__x86_64__) && !defined(PULSELINE_BASELINE_ONLY)
  static const bool avx512f =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  static const Entry list[kEntries] = {
      {&table_avx512, avx512f && __builtin_cpu_supports("avx512vpopcntdq") &&
                          __builtin_cpu_supports("avx512bitalg") &&
                          __builtin_cpu_supports("avx512vnni") &&
                          __builtin_cpu_supports("avx512vbmi2")},
      {&table_avx512f, avx512f},
      {&table_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
      {&table_baseline, true},
  };
#else
  static const Entry list[kEntries] = {
      {nullptr, false}, {nullptr, false}, {nullptr, false}, {&table_baseline, true}};
#endif
  return list;
}

const KernelTable* best() {
  for (int i = 0; i < kEntries; ++i)
    if (entries()[i].supported) return entries()[i].table;
  return nullptr;
}

const KernelTable*& current() {
  static const KernelTable* table = best();
  return table;
}

}  // namespace

const KernelTable* find_table(const char* isa) {
  for (int i = 0; i < kEntries; ++i)
    if (entries()[i].supported && !std::strcmp(entries()[i].table->isa, isa))
      return entries()[i].table;
  // On a processor without VPOPCNTDQ the plain AVX-512 kernels answer to the common name.
  return std::strcmp(isa, "avx512") ? nullptr : find_table("avx512f");
}

const KernelTable& table() { return *current(); }

bool use_table(const char* isa) {
  const KernelTable* t = find_table(isa);
  if (t) current() = t;
  return t != nullptr;
}

}  // namespace pulseline::cpu
