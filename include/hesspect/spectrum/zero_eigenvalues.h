// What an operator's spectrum becomes with further dimensions in which it is exactly zero.
//
// A run's vectors may leave out parameters that the loss does not depend on (rows of tables that the data don't use).
// The matrix of all parameters has the eigenvalues of the one in use, and as many zeros beside as are left out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// F of all dimensions: F of those in use times their share, and a step at zero. Errors and bounds shrink by the share;
/// nothing random is added.
/// @param n  dimensions in use
CumulativeDensity with_zeros(CumulativeDensity in_use, std::int64_t n, std::int64_t zeros);

/// How many eigenvalues were asked for.
struct AskedEigenvalues {
  std::int64_t top = 0, bottom = 0, magnitude = 0;
};

struct EigenvaluesWithZeros {
  EigenResult result;
  /// Of each value in the lists' order, which it was of those in use in theirs; nothing for a zero of the others.
  std::vector<std::optional<std::size_t>> source;
};

/// The lists of all dimensions: zeros take the place of negative ones among the largest and of positive ones among the
/// smallest, and fill up lists that are short because those in use have no more eigenvalues. A zero is exact; it counts
/// as converged where the value whose place it takes was, for else that one may belong there.
/// @param n  dimensions in use
EigenvaluesWithZeros with_zeros(const EigenResult& in_use, const AskedEigenvalues& asked, std::int64_t n,
                                std::int64_t zeros);

}  // namespace hesspect
