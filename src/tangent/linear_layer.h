// The linear layer that a program ends in, as the heads see it, whichever op it is.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "hesspect/tangent/rule.h"

namespace hesspect {

struct LinearLayer {
  /// Where its parts stand among an op's arguments.
  struct Places {
    std::size_t x = 0, w = 1;
    int bias = -1;
    bool transposed = false;  // w is [in, out]
  };

  explicit LinearLayer(const Arguments& arguments);

  void take(const Tangents& x_dots);
  bool has_tangents() const { return x_dot.defined() || w_dot.defined() || bias_dot.defined(); }
  void drop_tangents() { x_dot = w_dot = bias_dot = at::Tensor(); }

  Places places;
  std::vector<std::int64_t> shape;    // of x
  at::Tensor x, w, bias;              // [R, d], [C, d], [C]
  at::Tensor x_dot, w_dot, bias_dot;  // the same stacked
  std::int64_t count = 1;             // K
};

/// Where a sweep's sums go: x's are new rows, w's and the bias's are added to what is there. Undefined: not wanted.
struct LayerSums {
  LayerSums(const LinearLayer& the_layer, Sink* the_sink, std::int64_t count);
  void give() const;

  const LinearLayer& layer;
  Sink* sink;
  at::Tensor x, w, bias;  // [K, R, d], [K, C, d], [K, C]
};

}  // namespace hesspect
