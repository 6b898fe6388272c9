#pragma once
// Settings of every operator, one struct each: the NamedTuples of ops/layout.py. The order of their
// fields is written here and there, nowhere else; LAYOUT of a module tells it to Python, which
// compares at import. Fields of a struct have one type, so that it crosses as a plain sequence;
// what crosses lies within limits.h, or a sentence says which field does not.
//   ReadKey, UpdateKey, DrawKey   whose draws: seed, array, purpose; block_rows: of a
//   block-diagonal
//                                 matrix, whose blocks lie one behind the other; 0: dense
//   ReadSettings                  converters, noise and management of a plain read, see core/args.h
//   ConverterSettings             its options, see core/chain.h
//   PulseSettings                 pulse trains and fidelity of the update, see core/pulses.h
//   RetentionSettings             what happens between pulses, see core/retention.h
//   Counters                      of one array, in its buffer: samples read and pulsed so far
//   UpdateAddresses, UpdateSizes  one tile's update in a launch of several (CUDA)
//   CountedAddresses              counted pulses on single crosspoints, see cpu/counted.cpp
//   CountAddresses, CountSettings the rule of a buffered transfer, see cpu/buffered.cpp
//   UnfoldSizes                   an image and its patches, see core/unfold.h
#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "bind/limits.h"
#include "core/chain.h"
#include "core/retention.h"

#define PULSELINE_NAMED(Name, Type, ...)                 \
  struct Name {                                          \
    using Field = Type;                                  \
    static constexpr const char* kName = #Name;          \
    static constexpr const char* kFields = #__VA_ARGS__; \
    Type __VA_ARGS__;                                    \
  };

namespace pulseline::bind {

PULSELINE_NAMED(ReadKey, int64_t, seed, tile_id, purpose, tile_in, tile_out, fused, block_rows)
PULSELINE_NAMED(UpdateKey, int64_t, seed, tile_id, fidelity, block_rows, trains)
PULSELINE_NAMED(DrawKey, int64_t, seed, tile_id, block_rows)
PULSELINE_NAMED(ReadSettings, double, inp_bound, inp_res, inp_noise, out_bound, out_res, out_noise,
                w_noise, out_scale, noise_management, max_rounds)
PULSELINE_NAMED(ConverterSettings, double, nm_thres, nm_decay, advance, inp_sto_round,
                out_sto_round, passes, inp_gain, out_gain, pcm, out_noise_std, nonlinearity,
                nonlinearity_std, ir_drop, wire_resistance, ir_tolerance)
PULSELINE_NAMED(PulseSettings, double, granularity, desired_bl, fixed_bl, update_management,
                update_bl_management, group_size, coarseness, noise)
PULSELINE_NAMED(RetentionSettings, double, lifetime, lifetime_dtod, reset, reset_dtod, reset_std,
                diffusion, diffusion_dtod, drift_nu, drift_nu_dtod)
PULSELINE_NAMED(UpdateAddresses, uint64_t, w, step, slope, bound, x, d, workspace, fired, counter)
PULSELINE_NAMED(CountedAddresses, uint64_t, w, step, slope, bound, columns, counts, fired, visible)
PULSELINE_NAMED(CountAddresses, uint64_t, held, mean, rho, values, sign_columns, sign_rows, pulses)
PULSELINE_NAMED(CountSettings, double, rate, max_pulses, leak, momentum, forget, beta)
PULSELINE_NAMED(Counters, int64_t, forward, backward, evaluation, update)
PULSELINE_NAMED(UpdateSizes, int64_t, rows, cols, batch)
PULSELINE_NAMED(UnfoldSizes, int64_t, channels, sample_stride, channel_stride, stride0, stride1,
                stride2, outputs0, outputs1, outputs2, kernel0, kernel1, kernel2)

// In the order of the fields.
template <>
struct Limits<ReadKey> {
  static constexpr Limit kOf[] = {kSeeds, kTiles, kAnyWhole, kSizes, kSizes, kFlag, kExtents};
};
template <>
struct Limits<UpdateKey> {
  static constexpr Limit kOf[] = {kSeeds, kTiles, whole(0, kMoments), kExtents,
                                  whole(-1, 4294967295.0)};
};
template <>
struct Limits<DrawKey> {
  static constexpr Limit kOf[] = {kSeeds, kTiles, kExtents};
};
template <>
struct Limits<ReadSettings> {
  static constexpr Limit kOf[] = {kPositive,          kResolution, kPositive, kPositive,
                                  kResolution,        kPositive,   kPositive, kFinite,
                                  whole(0, kAverage), whole(0, 15)};
};
template <>
struct Limits<ConverterSettings> {
  static constexpr Limit kOf[] = {
      kPositive,        kPart,     kFlag,     kFlag,     kFlag,     whole(0, kDigitalSum),
      kFinite,          kFinite,   kFlag,     kPositive, kPositive, kPositive,
      whole(0, kNodal), kPositive, kTolerance};
};
template <>
struct Limits<PulseSettings> {
  static constexpr Limit kOf[] = {kNormal, whole(1, kMostSlots),    kFlag,     kFlag,
                                  kFlag,   whole(0, kGroupSamples), kPositive, whole(0, kLowRank)};
};
template <>
struct Limits<RetentionSettings> {
  static constexpr Limit kOf[] = {kPositive, kPositive, kFinite,   kPositive, kPositive,
                                  kPositive, kPositive, kPositive, kPositive};
};
template <>
struct Limits<UpdateAddresses> {
  static constexpr Limit kOf[] = {kAny, kAny, kAny, kAny, kAny, kAny, kAny, kAny, kAny};
};
template <>
struct Limits<CountedAddresses> {
  static constexpr Limit kOf[] = {kAny, kAny, kAny, kAny, kAny, kAny, kAny, kAny};
};
template <>
struct Limits<CountAddresses> {
  static constexpr Limit kOf[] = {kAny, kAny, kAny, kAny, kAny, kAny, kAny};
};
template <>
struct Limits<CountSettings> {
  static constexpr Limit kOf[] = {kAny, whole(1, kMostCounted), kPart, kPart, kFlag, kPart};
};
template <>
struct Limits<UpdateSizes> {
  static constexpr Limit kOf[] = {kAnyWhole, kAnyWhole, kAnyWhole};
};
template <>
struct Limits<UnfoldSizes> {
  static constexpr Limit kOf[] = {kExtents, kAnyWhole, kAnyWhole, kAnyWhole, kAnyWhole, kAnyWhole,
                                  kExtents, kExtents,  kExtents,  kExtents,  kExtents,  kExtents};
};
template <>
struct Limits<Counters> {
  static constexpr Limit kOf[] = {kAnyWhole, kAnyWhole, kAnyWhole, kAnyWhole};
};

// Name of a struct: its fields.
inline pybind11::dict layout() {
  pybind11::dict d;
  d["ReadKey"] = ReadKey::kFields;
  d["UpdateKey"] = UpdateKey::kFields;
  d["DrawKey"] = DrawKey::kFields;
  d["ReadSettings"] = ReadSettings::kFields;
  d["ConverterSettings"] = ConverterSettings::kFields;
  d["PulseSettings"] = PulseSettings::kFields;
  d["RetentionSettings"] = RetentionSettings::kFields;
  d["UpdateAddresses"] = UpdateAddresses::kFields;
  d["CountedAddresses"] = CountedAddresses::kFields;
  d["CountAddresses"] = CountAddresses::kFields;
  d["CountSettings"] = CountSettings::kFields;
  d["UpdateSizes"] = UpdateSizes::kFields;
  d["UnfoldSizes"] = UnfoldSizes::kFields;
  d["Counters"] = Counters::kFields;
  return d;
}

template <class T>
T* pointer(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

template <class Key>
Stream stream_of(const Key& key) {
  return {uint64_t(key.seed), uint32_t(key.tile_id)};
}

// Whose trains an update draws: its own, or those of the array that the key names; see Stream.
inline uint32_t trains_of(const UpdateKey& key) {
  return key.trains < 0 ? 0 : uint32_t(key.trains) ^ uint32_t(key.tile_id);
}

// The counter of an array's reads of this purpose.
inline int64_t* counter_of(uint64_t counters, const ReadKey& key) {
  auto* c = pointer<Counters>(counters);
  if (key.purpose == kForwardOutput) return &c->forward;
  if (key.purpose == kBackwardOutput) return &c->backward;
  if (key.purpose == kEvaluationOutput) return &c->evaluation;
  refuse("purpose is " + std::to_string(key.purpose) + "; use one of PURPOSES");
}

inline Span counters_at(uint64_t counters) {
  return {"counters", counters, int64_t(sizeof(Counters))};
}
inline void advance(int64_t* counter, int64_t batch) {
  *counter = int64_t(uint64_t(*counter) + uint64_t(batch));
}

// Where a value is not finite, as one number: -1 nowhere, 2 sample + (0: x, 1: d).
inline int64_t code_of(int32_t source, int64_t sample) {
  return source == 0 ? -1 : 2 * sample + source - 1;
}

// Pointers and sizes are the caller's to set.
inline ReadArgs read_args(const ReadKey& key, const ReadSettings& s) {
  ReadArgs a = {};
  a.tile_in = key.tile_in;
  a.tile_out = key.tile_out;
  a.stream = stream_of(key);
  a.output_purpose = uint32_t(key.purpose);
  a.input_purpose = uint32_t(key.purpose) + 1;
  a.dac = make_converter(float(s.inp_res), float(s.inp_bound));
  a.input_noise = float(s.inp_noise);
  a.adc = make_converter(float(s.out_res), float(s.out_bound));
  a.output_noise = float(s.out_noise);
  a.weight_noise = float(s.w_noise);
  a.out_scale = float(s.out_scale);
  a.noise_management = int32_t(s.noise_management);
  a.max_rounds = a.adc.bound > 0.0f ? int32_t(s.max_rounds) : 0;
  return a;
}

// average: nullptr where there is none.
inline Chain chain_args(const ReadArgs& a, const ConverterSettings& s, float* average) {
  Chain c = {};
  c.rounding_purpose = kForwardRounding + (a.output_purpose == kForwardOutput    ? 0
                                           : a.output_purpose == kBackwardOutput ? 1
                                                                                 : 2);
  c.threshold = float(s.nm_thres);
  c.decay = float(s.nm_decay);
  c.average = average;
  c.advance = s.advance != 0 && average;
  c.input_stochastic = s.inp_sto_round != 0;
  c.output_stochastic = s.out_sto_round != 0;
  c.passes = int32_t(s.passes);
  c.input_gain = float(s.inp_gain);
  c.output_gain = float(s.out_gain);
  c.pcm = s.pcm != 0 && a.weight_noise > 0.0f;
  c.output_noise_std = float(s.out_noise_std);
  c.nonlinearity = float(s.nonlinearity);
  c.nonlinearity_std = float(s.nonlinearity_std);
  c.ir_drop = int32_t(s.ir_drop);
  c.wire_resistance = s.wire_resistance;
  c.tolerance = s.ir_tolerance;
  return c;
}

inline TrainConfig train_config(double lr, const PulseSettings& s) {
  return {float(lr),           float(s.granularity),         int32_t(s.desired_bl),
          int32_t(s.fixed_bl), int32_t(s.update_management), int32_t(s.update_bl_management)};
}

inline UpdateArgs update_args(double lr, const PulseSettings& s) {
  UpdateArgs a = {};
  a.train = train_config(lr, s);
  a.noise = int32_t(s.noise);
  a.group_size = int32_t(s.group_size);
  a.coarseness = float(s.coarseness);
  return a;
}

inline RetentionParams retention_params(const RetentionSettings& s) {
  return {float(s.lifetime),       float(s.lifetime_dtod), float(s.reset),
          float(s.reset_dtod),     float(s.reset_std),     float(s.diffusion),
          float(s.diffusion_dtod), float(s.drift_nu),      float(s.drift_nu_dtod)};
}

}  // namespace pulseline::bind

namespace pybind11::detail {

// A sequence of as many numbers as the struct has fields, each within its limits.
template <class S>
struct type_caster<S, std::void_t<decltype(S::kFields), typename S::Field>> {
  PYBIND11_TYPE_CASTER(S, const_name("Sequence"));
  bool load(handle source, bool) {
    using T = typename S::Field;
    constexpr Py_ssize_t kCount = sizeof(S) / sizeof(T);
    const auto fields = reinterpret_steal<object>(PySequence_Fast(source.ptr(), ""));
    if (!fields || PySequence_Fast_GET_SIZE(fields.ptr()) != kCount)
      pulseline::bind::refuse_count(S::kName, S::kFields, kCount, source);
    T numbers[kCount];
    for (Py_ssize_t n = 0; n < kCount; ++n) {
      PyObject* field = PySequence_Fast_GET_ITEM(fields.ptr(), n);
      if constexpr (std::is_same_v<T, double>)
        numbers[n] = PyFloat_AsDouble(field);
      else if constexpr (std::is_same_v<T, uint64_t>)
        numbers[n] = PyLong_AsUnsignedLongLong(field);
      else
        numbers[n] = PyLong_AsLongLong(field);
      constexpr auto& kLimits = pulseline::bind::Limits<S>::kOf;
      static_assert(std::size(kLimits) == kCount, "as many limits as fields");
      const bool number = numbers[n] != T(-1) || !PyErr_Occurred();
      if (!number || !kLimits[n].hold(numbers[n]))
        pulseline::bind::refuse_field(S::kFields, n, field, kLimits[n]);
    }
    std::memcpy(&value, numbers, sizeof(S));
    return true;
  }
};

}  // namespace pybind11::detail
