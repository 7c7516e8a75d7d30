// How products with the matrix are taken.
#pragma once

#include <string>

namespace hesspect {

enum class ProductMode {
  kAuto,      // whichever is the fastest of those that fit
  kKept,      // by the tangent program, what does not depend on the vector staying between products
  kRebuilt,   // the same made again for each product
  kSegments,  // the same a segment of the program at a time, where only what crosses a cut stays
  kAutograd,  // by LibTorch's autograd, reverse over reverse
};

/// Whether micro-batches may stay made between products.
inline bool keeps(ProductMode mode) { return mode != ProductMode::kRebuilt && mode != ProductMode::kSegments; }

inline std::string to_string(ProductMode mode) {
  switch (mode) {
    case ProductMode::kAuto: return "auto";
    case ProductMode::kKept: return "kept";
    case ProductMode::kRebuilt: return "rebuilt";
    case ProductMode::kSegments: return "segments";
    case ProductMode::kAutograd: return "autograd";
  }
  return "";
}

}  // namespace hesspect
