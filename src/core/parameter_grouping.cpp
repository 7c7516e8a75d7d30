#include "hesspect/core/parameter_grouping.h"

namespace hesspect {

std::string to_string(ParameterGrouping grouping) {
  switch (grouping) {
    case ParameterGrouping::kNone: return "none";
    case ParameterGrouping::kTensor: return "per-tensor";
    case ParameterGrouping::kLayer: return "per-layer";
    case ParameterGrouping::kModule: return "per-module";
  }
  return "?";
}

}  // namespace hesspect
