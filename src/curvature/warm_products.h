// What trials leave to an operator over the same rows on the same process: it need not make again what they have made.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "local_loss.h"

namespace hesspect {

/// A first gradient that takes this long is hardly longer than a warm one.
inline constexpr double kLongGradient_s = 0.1;

struct WarmProducts {
  std::unique_ptr<LocalLoss> local;                      // what follows borrows it
  std::vector<MicroBatch> batches;                       // one, of all rows
  std::vector<std::unique_ptr<BatchProducts>> products;  // of each, kept
  std::int64_t graph_bytes = 0;                          // that keeping it takes
  at::Tensor inputs, sums;                               // [1, stride]: a vector, and what the product adds up to
  double product_s = 0;                                  // that it took
  double loss = 0;                                       // ℓ_sum
  at::Tensor gradient;                                   // [n], of ℓ_sum
  double gradient_s = 0;                                 // that it took, warm
};

/// From one vector to the next in room for several: every vector starts at the same place within a cache line, for
/// kernels round differently by alignment, and a product must not depend on its company.
inline std::int64_t vector_stride(std::int64_t entries) { return (entries + 15) / 16 * 16; }

}  // namespace hesspect
