// Which Ritz pairs are wanted, and what is reported of them: for runs of single vectors and of blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "hesspect/krylov/tridiagonal.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// max |θ| of ascending pairs; 0 where there are none.
double largest_magnitude(const std::vector<RitzPair>& pairs);

/// How many of each list, where all n eigenvalues are enough for them.
struct WantedCounts {
  std::size_t top = 0, bottom = 0, magnitude = 0;
  std::size_t all() const { return top + bottom + magnitude; }
};
/// @throws UsageError for negative counts, or magnitude beside top or bottom
WantedCounts wanted_counts(std::int64_t n, const EigenOptions& options);

/// Indices into ascending Ritz pairs, in the lists' order.
struct EigenSelection {
  std::vector<std::size_t> top, bottom, magnitude;
  /// All of them in the order in which eigenvectors are numbered: top then bottom, or magnitude.
  std::vector<std::size_t> all() const;
};
/// @param complete  the pairs are all that there is; else each end gets its share where they are too few
EigenSelection select_wanted(const std::vector<RitzPair>& pairs, const WantedCounts& wanted, bool complete);

/// The lists with bounds, errors and `converged`. What the method knows of itself (steps, exhausted, …) is left as it
/// is by default.
/// @param options   rtol and product_error
/// @param rounding  what the products' rounding adds to a residual
EigenResult listed(const std::vector<RitzPair>& pairs, const WantedCounts& wanted, const EigenOptions& options,
                   double rounding, bool complete);

/// Which pairs a thick restart keeps: the wanted ones and as many more next to them as leave room to go on. Ascending.
/// @param most  rows that T may have
/// @return fewer than there are pairs
std::vector<std::size_t> kept_pairs(const std::vector<RitzPair>& pairs, const WantedCounts& wanted, std::int64_t most);

/// The smallest basis, the next row included, in which so many eigenvalues can be found by thick restarts.
std::int64_t smallest_basis(const WantedCounts& wanted);

}  // namespace hesspect
