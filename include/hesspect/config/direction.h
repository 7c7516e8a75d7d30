// Names of directions through the parameters, as options have them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hesspect {

struct DirectionName {
  enum class Kind { kEigenvector, kRandom, kGradient, kWeights };
  Kind kind = Kind::kEigenvector;
  /// Eigenvector: 1 of the largest eigenvalue, 2 of the next, …, −1 of the smallest. Random: which of the seed's.
  std::int64_t number = 1;
  std::string file;  // weights: a state dict
};

/// "eigenvector:I", "random", "random:I", "gradient" or "weights:FILE". @throws UsageError for anything else
DirectionName direction_from(const std::string& text);

/// The directions of `landscape`: those that are named, or the first two eigenvectors. @throws UsageError
std::vector<DirectionName> directions_from(const std::vector<std::string>& texts);

}  // namespace hesspect
