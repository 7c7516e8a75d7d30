// The Krylov basis Q: rows q_0, q_1, …, each this rank's shard of a vector.
//
// Flat row-major memory [rows, chunk] in blocks of rows, so that growing neither copies nor doubles the memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace hesspect {

/// How basis vectors are kept.
struct BasisOptions {
  /// float64, float32 or bfloat16, no wider than the vectors; Undefined: the vectors' own dtype. Narrower rows serve
  /// re-orthogonalisation alone: the recurrence runs on vectors of full precision.
  at::ScalarType storage = at::ScalarType::Undefined;
  /// In (pinned) host memory although the vectors are on a GPU; a pass over the basis then streams it to the device.
  bool on_host = false;
};

/// Rows [begin, begin + count) of matrices that stand one below the other, or as many of them as there are.
std::vector<at::Tensor> rows_of(std::span<const at::Tensor> blocks, std::int64_t begin, std::int64_t count);

class Basis {
 public:
  /// @param options  of the vectors: float32 or float64, and the device
  /// @throws UsageError for a storage wider than the vectors, or none of the three
  Basis(std::int64_t chunk, const at::TensorOptions& options, const BasisOptions& basis = {});

  std::int64_t rows() const { return rows_; }
  std::int64_t capacity() const { return capacity_; }
  /// dtype and device of the rows.
  const at::TensorOptions& options() const { return options_; }
  /// Bytes of memory held for rows, used or not.
  std::int64_t bytes() const;

  /// Makes room for `rows` rows in all, in pinned memory by whole blocks. Not collective: run it inside `agree`.
  /// @throws MemoryError saying how much was asked for
  void reserve(std::int64_t rows);
  /// Row i, [chunk], aliasing the basis.
  at::Tensor row(std::int64_t i) const;
  /// Rows [begin, begin + count), [chunk] each.
  std::vector<at::Tensor> vectors(std::int64_t begin, std::int64_t count) const;
  /// A new last row, its content undefined.
  at::Tensor append();
  /// Rows [0, rows) alone; the memory of the others stays for what comes.
  void truncate(std::int64_t rows) { rows_ = std::min(rows_, rows); }
  /// Rows [0, count) as matrices, for vector_math.h.
  std::vector<at::Tensor> head(std::int64_t count) const { return rows_of(blocks_, 0, count); }
  /// Rows [begin, rows()), the same.
  std::vector<at::Tensor> tail(std::int64_t begin) const { return rows_of(blocks_, begin, rows_ - begin); }

 private:
  std::int64_t chunk_;
  at::TensorOptions options_;       // of the rows
  std::vector<at::Tensor> blocks_;  // each [block rows, chunk]
  std::int64_t rows_ = 0;
  std::int64_t capacity_ = 0;
};

}  // namespace hesspect
