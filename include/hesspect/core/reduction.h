// How a loss is taken over all its terms.
#pragma once

#include <string>

namespace hesspect {

/// As PyTorch has it. For 'output' it also says what the program's scalar is over its rows.
enum class Reduction { kMean, kSum };

inline std::string to_string(Reduction reduction) { return reduction == Reduction::kSum ? "sum" : "mean"; }

}  // namespace hesspect
