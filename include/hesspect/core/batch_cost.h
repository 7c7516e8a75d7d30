// What one micro-batch costs, in time and memory: curvature measures it, and plans are made from it.
#pragma once

#include <cstdint>

#include "hesspect/core/product_mode.h"

namespace hesspect {

/// Costs on this process's device with its threads. Bytes of b rows: fixed + b · row.
struct BatchCost {
  std::int64_t micro_batch = 0;            // rows: as asked for, or the best of those tried
  double graph_s = 0;                      // forward and backward that make what can be kept between products
  double pullback_s = 0;                   // a product from what is kept
  std::int64_t graph_fixed_bytes = 0;      // of what can be kept between products
  std::int64_t graph_row_bytes = 0;        // and the activations of each row
  std::int64_t transient_fixed_bytes = 0;  // peak of a product from what is kept, above that
  std::int64_t transient_row_bytes = 0;
  std::int64_t output_row_bytes = 0;  // of the output that the loss takes (logits); the graph's bytes include them
  ProductMode product = ProductMode::kAuto;  // the way that was measured
  std::int64_t building_fixed_bytes = 0;     // peak of making what can be kept, above it
  std::int64_t building_row_bytes = 0;
};

}  // namespace hesspect
