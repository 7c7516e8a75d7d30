// Products of single micro-batches, tried on a process's first rows to learn what they cost.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "local_loss.h"
#include "warm_products.h"

namespace hesspect {

/// What a product of one micro-batch takes, and what of it could be kept.
struct ProductTrial {
  std::int64_t rows = 0;
  double seconds = 0;                  // of a product that makes all; infinite where it was not repeated
  double graph_s = 0, pullback_s = 0;  // of the pass that counted the bytes
  std::int64_t graph_bytes = 0;        // of what could be kept
  std::int64_t building_bytes = 0;     // the most that was held beyond that while it was made
  std::int64_t transient_bytes = 0;    // and in a product from it
  double seconds_per_row() const { return seconds / static_cast<double>(rows); }
  std::int64_t peak_bytes() const { return graph_bytes + std::max(building_bytes, transient_bytes); }
};

/// Bytes of b rows: fixed + b · row.
struct LinearBytes {
  std::int64_t fixed = 0;
  std::int64_t row = 0;
  double at(std::int64_t rows) const {
    return static_cast<double>(fixed) + static_cast<double>(rows) * static_cast<double>(row);
  }
  /// The line through two measurements, neither part below zero. @param a_rows < b_rows
  static LinearBytes through(std::int64_t a_rows, std::int64_t a_bytes, std::int64_t b_rows, std::int64_t b_bytes);
};

class ProductTrials {
 public:
  /// Borrows local, and takes one vector over the parameters.
  /// @param vector  [n], of the products, and then the last trial of all rows stays, for take_last(); none: the
  ///                parameters
  explicit ProductTrials(LocalLoss& local, const at::Tensor& vector = {});

  /// Measures a product of the first `rows` rows: the shortest of up to `repeats` times (fewer where they take long;
  /// warm after the first), and its bytes. 0 repeats: its bytes alone, which are measured once for any number of rows.
  ProductTrial product(std::int64_t rows, int repeats);
  /// Medians of warm times of the first `rows` rows; of a long pass that counted bytes, its own.
  struct Times {
    double graph_s = 0, pullback_s = 0;
  };
  Times times(std::int64_t rows);
  /// Bytes of the output that the loss takes.
  std::int64_t output_bytes(std::int64_t rows);

  /// The size with the cheapest rows, of those that double from a few rows up; of sizes within 3 % the largest.
  /// @param memory_bytes  what the peak of a product may take
  /// @throws MemoryError where not even the smallest fits
  std::int64_t best_micro_batch(std::int64_t memory_bytes);
  /// @throws MemoryError where a product of `rows` rows would not fit, as forecast from fewer
  void require_room(std::int64_t rows, std::int64_t memory_bytes);

  /// Lets go what stayed of the last trial of all rows.
  void forget_last() { last_.reset(); }
  /// What stayed of it, all but the loss itself; nullptr where nothing did.
  std::shared_ptr<WarmProducts> take_last();

 private:
  std::shared_ptr<WarmProducts> tried(std::int64_t rows) const;
  void add_gradient(WarmProducts& trial) const;
  void add(BatchProducts& products) const;
  /// Makes what is kept and takes a product from it, both clocked.
  void count_bytes(BatchProducts& products, ProductTrial& trial);
  /// The largest of `rows`, `rows` / 2, … that runs within memory_bytes.
  ProductTrial first_that_fits(std::int64_t rows, int repeats, std::int64_t memory_bytes);

  LocalLoss& local_;
  std::map<std::int64_t, ProductTrial> known_;  // by their rows
  bool stays_;
  std::shared_ptr<WarmProducts> last_;
  at::Tensor inputs_, sums_;  // [1, stride]; the former where the vector was given
  at::Tensor sum_;            // [n], of sums_: where products are added up
  at::Tensor v_;              // [1, n]
};

}  // namespace hesspect
