// One source, compiled once per instruction set: isa_*.cpp define PULSELINE_ISA_NAME, include their
// vocabulary (simd_*.h) and then this file. Everything here has internal linkage but the table.
#include <type_traits>

#include "cpu/kernels.h"

#ifndef PULSELINE_ISA_NAME
#error "include from isa_*.cpp, which sets PULSELINE_ISA_NAME"
#endif
#define PL_LAMBDA __attribute__((always_inline))
#define PL_CAT_(a, b) a##b
#define PL_CAT(a, b) PL_CAT_(a, b)
#define PL_STRING_(a) #a
#define PL_STRING(a) PL_STRING_(a)

// In the order of use; clang-format would sort them.
// clang-format off
#include "cpu/read.inl"
#include "cpu/chain.inl"
#include "cpu/trains.inl"
#include "cpu/lowrank.inl"
#include "cpu/crosspoint.inl"
#include "cpu/update.inl"
#include "cpu/single.inl"
#include "cpu/ordered.inl"
#include "cpu/pack.inl"
#include "cpu/relax.inl"
#include "cpu/retention.inl"
#include "cpu/construct.inl"
#include "cpu/counted.inl"
// clang-format on

namespace pulseline::cpu {

#define PL_EXACT(D) exact<D>,
#define PL_STRICT(D) strict<D>,
#define PL_EXPECTED(D) expected<D>,
#define PL_GROUPED(D) grouped<D>,
#define PL_MOMENTS(D) moments<D>,
#define PL_CONSTRUCT(D) construct<D>,
#define PL_COUNTED(D) counted<D>,

extern const KernelTable PL_CAT(table_, PULSELINE_ISA_NAME);
const KernelTable PL_CAT(table_, PULSELINE_ISA_NAME) = {
    PL_STRING(PULSELINE_ISA_NAME),
    kFusedRead,
    kPanel,
    absmax,
    above,
    column_trains,
    row_trains,
    column_moments,
    row_moments,
    column_ranks,
    row_ranks,
    {PULSELINE_DEVICES(PL_EXACT)},
    {PULSELINE_DEVICES(PL_STRICT)},
    {PULSELINE_DEVICES(PL_EXPECTED)},
    {PULSELINE_DEVICES(PL_GROUPED)},
    {PULSELINE_DEVICES(PL_MOMENTS)},
    prepare_input,
    read_panel,
    accumulate_outer,
    chain_input,
    chain_output,
    chain_add,
    retain,
    write_noise,
    {PULSELINE_DEVICES(PL_CONSTRUCT)},
    construct_retention,
    initial_normals,
    mark_last,
    {PULSELINE_DEVICES(PL_COUNTED)},
    counts_whole,
};

}  // namespace pulseline::cpu
