// How a vector over all n parameters is cut over the D ranks of a group.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "hesspect/core/entry_numbers.h"

namespace hesspect {

/// Equal chunks of ceil(n / D) entries; the tail beyond n is padding and holds zeros, always.
/// Every local vector has `chunk` entries, whatever the rank; a gathered one has `padded()`.
struct Shard {
  std::int64_t n = 0;  // global length
  int ranks = 1;       // D
  int rank = 0;
  std::int64_t chunk = 0;  // entries of a local vector
  /// Which parameters the n entries are, for random numbers; none: entry i is parameter i.
  std::shared_ptr<const EntryNumbers> numbers = nullptr;

  static Shard of(std::int64_t n, int ranks, int rank, std::shared_ptr<const EntryNumbers> numbers = nullptr) {
    return Shard{n, ranks, rank, (n + ranks - 1) / ranks, std::move(numbers)};
  }
  std::int64_t begin() const { return std::min(n, chunk * rank); }
  std::int64_t end() const { return std::min(n, chunk * (rank + 1)); }
  /// Entries of this rank that are not padding.
  std::int64_t size() const { return end() - begin(); }
  std::int64_t padded() const { return chunk * ranks; }
};

}  // namespace hesspect
