// Where classes and terms lie in outputs: shared by the losses and by their checks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "hesspect/curvature/loss.h"

namespace hesspect {

inline bool has_classes_last(LossKind kind) { return kind == LossKind::kCausalLm || kind == LossKind::kMaskedLm; }

inline bool takes_classes(LossKind kind) {
  return kind == LossKind::kCrossEntropy || kind == LossKind::kNll || has_classes_last(kind);
}

/// The dimension of an output, of two dimensions at least, that runs over the classes.
inline std::int64_t class_dimension(LossKind kind, const at::Tensor& output) {
  return has_classes_last(kind) ? output.dim() - 1 : 1;
}

/// The shape of the loss's terms: the output's, without the classes.
inline std::vector<std::int64_t> term_shape(LossKind kind, const at::Tensor& output) {
  std::vector<std::int64_t> shape = output.sizes().vec();
  if (takes_classes(kind)) shape.erase(shape.begin() + class_dimension(kind, output));
  return shape;
}

}  // namespace hesspect
