#pragma once
// What crosses into the compiled modules is looked at here, whoever calls: the limits of settings,
// memory that is there, and memory that is written and read by one call. A refusal is one sentence,
// a ConfigError.
#include <pybind11/pybind11.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>

namespace pulseline::bind {

[[noreturn]] inline void refuse(const std::string& sentence) {
  const auto errors = pybind11::module_::import("pulseline.errors");
  PyErr_SetString(errors.attr("ConfigError").ptr(), sentence.c_str());
  throw pybind11::error_already_set();
}

// ---- limits of numbers ----

constexpr double kSmallest = FLT_MIN, kLargest = FLT_MAX;
constexpr double kMostSize = 2147483647;  // of a matrix or a physical tile
constexpr int64_t kMostSlots = 1 << 20;   // numbers of words and slots fit the draw field
constexpr double kMostStep = 4096;        // of joined pulses, whose squares are float32 numbers

struct Limit {
  double least, most;
  bool whole;
  template <class T>
  constexpr bool hold(T v) const {
    if constexpr (std::is_same_v<T, double>)
      return v >= least && v <= most && !(whole && v != double(int64_t(v)));
    else
      return double(v) >= least && double(v) <= most;
  }
};
constexpr Limit whole(double least, double most) { return {least, most, true}; }
constexpr Limit kAny = {-HUGE_VAL, HUGE_VAL, false}, kAnyWhole = whole(-HUGE_VAL, HUGE_VAL);
constexpr Limit kFinite = {-kLargest, kLargest, false}, kPositive = {0, kLargest, false};
constexpr Limit kNormal = {kSmallest, kLargest, false}, kPart = {0, 1, false};
constexpr Limit kFlag = whole(0, 1), kSizes = whole(1, kMostSize), kTiles = whole(0, 4294967295.0);
constexpr Limit kExtents = whole(0, kMostSize);
constexpr Limit kSeeds = whole(0, 9223372036854775807.0);
constexpr Limit kTolerance = {1e-12, 1, false};
constexpr Limit kResolution = {0, 4194304, false};  // 2^22 levels

template <class S>
struct Limits;  // kOf: of a struct of settings, see layout.h

inline std::string text(double v) {
  if (v == std::floor(v) && std::fabs(v) < 9e18) return std::to_string(int64_t(v));
  return pybind11::repr(pybind11::float_(v));
}
[[noreturn]] inline void refuse_value(const std::string& name, const std::string& value,
                                      const Limit& limit) {
  std::string use = limit.whole ? "; use a whole number" : "; use a number";
  if (limit.most < HUGE_VAL)
    use += " from " + text(limit.least) + " to " +
           (limit.most > 9e18 && limit.whole ? "9223372036854775807" : text(limit.most));
  refuse(name + " is " + value + use);
}
// Field n of a list of names.
[[noreturn]] inline void refuse_field(const char* fields, Py_ssize_t n, pybind11::handle value,
                                      const Limit& limit) {
  PyErr_Clear();
  std::string names = fields;
  for (; n > 0; --n) names.erase(0, names.find(", ") + 2);
  refuse_value(names.substr(0, names.find(',')), pybind11::repr(value), limit);
}
[[noreturn]] inline void refuse_count(const char* name, const char* fields, Py_ssize_t count,
                                      pybind11::handle values) {
  PyErr_Clear();
  const auto n = PyObject_Size(values.ptr());
  PyErr_Clear();
  refuse(std::string(name) + " has " + (n < 0 ? "no" : std::to_string(n)) + " numbers; use its " +
         std::to_string(count) + " fields: " + fields);
}

// ---- memory of a call ----

struct Span {
  const char* name;
  uint64_t first;
  int64_t bytes;
  bool optional = false;  // 0: not asked for
};

// Each span is there, and none that is written lies over another one.
inline void check_memory(std::initializer_list<Span> written, std::initializer_list<Span> read) {
  const auto there = [](const Span& s) {
    if (s.first == 0 && s.bytes > 0 && !s.optional)
      refuse(std::string(s.name) +
             " has no memory, its storage was freed or never made; use a tensor with values");
  };
  const auto apart = [](const Span& a, const Span& b) {
    if (a.first == 0 || b.first == 0 || a.bytes == 0 || b.bytes == 0) return;
    if (a.first < b.first + uint64_t(b.bytes) && b.first < a.first + uint64_t(a.bytes))
      refuse(std::string(b.name) + " shares memory with " + a.name +
             ", which is written; use a clone of it");
  };
  for (auto a = written.begin(); a != written.end(); ++a) {
    there(*a);
    for (const Span& b : read) apart(*a, b);
    for (auto b = a + 1; b != written.end(); ++b) apart(*a, *b);
  }
  for (const Span& s : read) there(s);
}

}  // namespace pulseline::bind
