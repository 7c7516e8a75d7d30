// What a micro-batch of the curvature in the inputs costs: curvature measures it, and plans are made from it.
#pragma once

#include <cstdint>

namespace hesspect {

/// On this process's device with its threads.
struct InputCost {
  std::int64_t micro_batch = 0;      // rows; 0: not measured
  std::int64_t dimensions = 0;       // D, of a row
  std::int64_t products = 0;         // that a micro-batch takes, at most
  std::int64_t graph_bytes = 0;      // of the losses with their first derivatives, which products go back through
  std::int64_t transient_bytes = 0;  // of a product, beside that
  double gradient_s = 0;             // to make the graph; a micro-batch takes two
  double product_s = 0;
};

}  // namespace hesspect
