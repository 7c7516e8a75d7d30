// Which parameter tensors belong together, by their names alone.
#pragma once

#include <string>

namespace hesspect {

enum class ParameterGrouping {
  kNone,
  kTensor,  // each by itself
  kLayer,   // those of one leaf module: weight and bias
  kModule   // those of one stage or repeated block: "layer1", "transformer.h.0"
};

std::string to_string(ParameterGrouping grouping);  // "none", "per-tensor", …

}  // namespace hesspect
