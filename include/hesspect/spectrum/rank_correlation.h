// Spearman's rank correlation, plain and partial, with an interval.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace hesspect {

struct RankCorrelation {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  double value = kUnknown;
  double lower = kUnknown, upper = kUnknown;
  std::int64_t count = 0;  // of pairs
};

/// Fewer pairs say nothing.
inline constexpr std::int64_t kLeastPairs = 5;

/// The correlation of ranks, ties having the mean of theirs. Unknown where there are too few pairs, or one of both has
/// one value alone. The interval is by Fisher's z with Bonett & Wright's variance, (1 + ρ²/2)/(n − 3): pairs are taken
/// as independent draws, and their values as exact.
/// Source: Bonett & Wright, Psychometrika 65, 2000
RankCorrelation spearman(const std::vector<double>& x, const std::vector<double>& y, double confidence);

/// The same with what the ranks of z explain taken out of both: (ρ_xy − ρ_xz ρ_yz)/√((1 − ρ_xz²)(1 − ρ_yz²)), the
/// variance over n − 4. Unknown also where z explains x or y entirely.
RankCorrelation partial_spearman(const std::vector<double>& x, const std::vector<double>& y,
                                 const std::vector<double>& z, double confidence);

}  // namespace hesspect
