#include "hesspect/krylov/basis.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <string>

#include "hesspect/core/buffer_sizes.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

at::TensorOptions row_options(const at::TensorOptions& vectors, const BasisOptions& basis) {
  at::TensorOptions rows = vectors;
  if (basis.storage != at::ScalarType::Undefined) {
    const bool known =
        basis.storage == at::kDouble || basis.storage == at::kFloat || basis.storage == at::ScalarType::BFloat16;
    if (!known || c10::elementSize(basis.storage) > vectors.dtype().itemsize())
      throw UsageError(std::string("the Krylov basis can't be stored as ") + c10::toString(basis.storage) +
                       ": float64, float32 or bfloat16, no wider than the vectors, which are " +
                       std::string(vectors.dtype().name()));
    rows = rows.dtype(basis.storage);
  }
  if (basis.on_host && !vectors.device().is_cpu()) rows = rows.device(at::kCPU).pinned_memory(true);
  return rows;
}

}  // namespace

Basis::Basis(std::int64_t chunk, const at::TensorOptions& options, const BasisOptions& basis)
    : chunk_(chunk), options_(row_options(options, basis)) {}

std::int64_t Basis::bytes() const {
  return capacity_ * chunk_ * static_cast<std::int64_t>(options_.dtype().itemsize());
}

void Basis::reserve(std::int64_t rows) {
  while (capacity_ < rows) {
    // Pinned memory comes in powers of two: blocks of a few rows each would waste half of it.
    const std::int64_t more = options_.pinned_memory() ? kBasisBlockRows : std::min(kBasisBlockRows, rows - capacity_);
    try {
      blocks_.push_back(at::empty({more, chunk_}, options_));
    } catch (const c10::Error& error) {
      const std::int64_t needed = rows * chunk_ * static_cast<std::int64_t>(options_.dtype().itemsize());
      throw MemoryError(needed, -1,
                        "a Krylov basis of " + format_count(rows) + " vectors of " + format_count(chunk_) +
                            " entries per rank (" + format_bytes(needed) + ") does not fit: after " +
                            format_bytes(bytes()) +
                            " of it no more was given; use fewer steps, more ranks or narrower storage");
    }
    capacity_ += more;
  }
}

at::Tensor Basis::row(std::int64_t i) const {
  for (const at::Tensor& block : blocks_) {
    if (i < block.size(0)) return block.select(0, i);
    i -= block.size(0);
  }
  throw Error(ExitCode::kInternal, "Basis::row: no such row");
}

std::vector<at::Tensor> Basis::vectors(std::int64_t begin, std::int64_t count) const {
  std::vector<at::Tensor> rows;
  for (std::int64_t i = begin; i < begin + count; ++i) rows.push_back(row(i));
  return rows;
}

at::Tensor Basis::append() {
  reserve(rows_ + 1);
  return row(rows_++);
}

std::vector<at::Tensor> rows_of(std::span<const at::Tensor> blocks, std::int64_t begin, std::int64_t count) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& block : blocks) {
    const std::int64_t skip = std::min(begin, block.size(0)), rows = std::min(count, block.size(0) - skip);
    if (rows > 0) parts.push_back(block.narrow(0, skip, rows));
    begin -= skip;
    count -= rows;
  }
  return parts;
}

}  // namespace hesspect
