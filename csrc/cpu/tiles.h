#pragma once
// Lines of a block on physical tiles, which are counted over the whole array: a block that begins
// within a tile has less of it.
#include <cstdint>

namespace pulseline::cpu {

struct Tiles {
  int64_t line0, lines, size;  // first line of the block in the array, its lines; of a tile

  int64_t index(int64_t t) const { return line0 / size + t; }  // in the array
  int64_t count() const { return lines ? (line0 + lines - 1) / size - line0 / size + 1 : 0; }
  int64_t begin(int64_t t) const { return t ? index(t) * size - line0 : 0; }
  int64_t end(int64_t t) const {
    const int64_t last = (index(t) + 1) * size - line0;
    return last < lines ? last : lines;
  }
};

}  // namespace pulseline::cpu
