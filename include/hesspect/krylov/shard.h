// How a vector over all n parameters is cut over the D ranks of a group.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "hesspect/core/entry_numbers.h"
#include "hesspect/core/vector_cut.h"

namespace hesspect {

/// Equal chunks of ceil(n / D) entries; the tail beyond n is padding and holds zeros, always. Where parameters are
/// sharded too, the vector is cut set by set (core/vector_cut.h), with padding behind each set's end.
/// Every local vector has `chunk` entries, whatever the rank; a gathered one has `padded()`.
struct Shard {
  std::int64_t n = 0;  // global length
  int ranks = 1;       // D
  int rank = 0;
  std::int64_t chunk = 0;  // entries of a local vector
  /// Which parameters the n entries are, for random numbers; none: entry i is parameter i.
  std::shared_ptr<const EntryNumbers> numbers = nullptr;
  /// How it is cut set by set; none: in equal chunks.
  std::shared_ptr<const VectorCut> cut = nullptr;

  static Shard of(std::int64_t n, int ranks, int rank, std::shared_ptr<const EntryNumbers> numbers = nullptr) {
    return Shard{n, ranks, rank, (n + ranks - 1) / ranks, std::move(numbers)};
  }
  static Shard of(std::shared_ptr<const VectorCut> cut, int rank,
                  std::shared_ptr<const EntryNumbers> numbers = nullptr) {
    return Shard{cut->n(), cut->ranks(), rank, cut->chunk(), std::move(numbers), cut};
  }

  /// visit(position in the local vector, begin in the whole one, size) for each stretch that is no padding.
  template <class Visit>
  void for_each_piece(Visit&& visit) const {
    for_each_piece_of(rank, visit);
  }
  /// The same of another rank's local vector.
  template <class Visit>
  void for_each_piece_of(int other, Visit&& visit) const {
    if (cut) return cut->for_each(other, visit);
    const std::int64_t first = std::min(n, chunk * other), last = std::min(n, chunk * (other + 1));
    if (first < last) visit(std::int64_t{0}, first, last - first);
  }

  // Where it is cut in equal chunks: this rank's entries, and how many of them are not padding.
  std::int64_t begin() const { return std::min(n, chunk * rank); }
  std::int64_t end() const { return std::min(n, chunk * (rank + 1)); }
  std::int64_t size() const { return end() - begin(); }

  std::int64_t padded() const { return chunk * ranks; }
};

}  // namespace hesspect
