// Groups of rows, by whose spread the error is told that the data make.
#pragma once

#include <cstdint>
#include <vector>

namespace hesspect {

/// Asked for instead of a number: as many as leave the micro-batches about as they are.
inline constexpr std::int64_t kAutoRowGroups = -1;
/// With fewer groups their spread says too little.
inline constexpr std::int64_t kFewestRowGroups = 4;

/// The rows in the file's order, cut into groups of as many rows each, to a unit.
struct RowGroups {
  std::vector<std::int64_t> rows;  // [groups]
  /// [groups] of what the mean loss divides by, or of the rows where the loss is a sum; they sum to 1.
  std::vector<double> share;
  std::vector<double> loss;  // [groups], each group's part of the loss: they sum to it
  bool empty() const { return rows.empty(); }
  std::int64_t count() const { return static_cast<std::int64_t>(rows.size()); }
};

}  // namespace hesspect
