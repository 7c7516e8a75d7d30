#include "eigen_lists.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

/// Rows beside the wanted ones, the next row and those that a thick restart keeps besides included.
constexpr std::size_t kLeastRoom = 8;

std::vector<std::size_t> by_magnitude(const std::vector<RitzPair>& pairs) {
  std::vector<std::size_t> order(pairs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return std::abs(pairs[a].value) > std::abs(pairs[b].value); });
  return order;
}

/// `count` in proportion to `part` of `whole`, rounded.
std::size_t share(std::size_t count, std::size_t part, std::size_t whole) {
  return whole == 0 ? 0 : (2 * count * part + whole) / (2 * whole);
}

/// Parlett, The Symmetric Eigenvalue Problem, §11.7: residual²/gap, gap to the nearest other eigenvalue, which lies
/// within its own Ritz value's bound. The products' rounding moves a value by its own size, not by the square.
double error_of(const std::vector<RitzPair>& pairs, std::size_t i, double rounding) {
  const double residual = pairs[i].residual + rounding;
  double gap = std::numeric_limits<double>::infinity();
  for (std::size_t j = 0; j < pairs.size(); ++j)
    if (j != i) gap = std::min(gap, std::abs(pairs[j].value - pairs[i].value) - pairs[j].residual - rounding);
  return gap > residual ? std::min(residual, pairs[i].residual * pairs[i].residual / gap + rounding) : residual;
}

}  // namespace

double largest_magnitude(const std::vector<RitzPair>& pairs) {
  return pairs.empty() ? 0 : std::max(std::abs(pairs.front().value), std::abs(pairs.back().value));
}

WantedCounts wanted_counts(std::int64_t n, const EigenOptions& options) {
  if (options.top < 0 || options.bottom < 0 || options.magnitude < 0)
    throw UsageError("eigenvalues: top, bottom and magnitude must be 0 or more");
  if (options.magnitude > 0 && (options.top > 0 || options.bottom > 0))
    throw UsageError("eigenvalues: largest magnitudes can't be asked for beside top or bottom");
  const std::int64_t top = std::min(options.top, n);
  return {static_cast<std::size_t>(top), static_cast<std::size_t>(std::min(options.bottom, n - top)),
          static_cast<std::size_t>(std::min(options.magnitude, n))};
}

std::vector<std::size_t> EigenSelection::all() const {
  std::vector<std::size_t> indices = top;
  indices.insert(indices.end(), bottom.begin(), bottom.end());
  indices.insert(indices.end(), magnitude.begin(), magnitude.end());
  return indices;
}

EigenSelection select_wanted(const std::vector<RitzPair>& pairs, const WantedCounts& wanted, bool complete) {
  EigenSelection selection;
  const std::size_t size = pairs.size();
  if (wanted.magnitude > 0) {
    selection.magnitude = by_magnitude(pairs);
    selection.magnitude.resize(std::min(size, wanted.magnitude));
    return selection;
  }
  std::size_t top = std::min(wanted.top, size);
  // Too few so far: each end its share, or the smallest value would stand among the largest.
  if (!complete && size < wanted.all()) top = share(size, wanted.top, wanted.all());
  const std::size_t bottom = std::min(wanted.bottom, size - top);
  for (std::size_t i = 0; i < top; ++i) selection.top.push_back(size - 1 - i);
  for (std::size_t i = bottom; i > 0; --i) selection.bottom.push_back(i - 1);
  return selection;
}

EigenResult listed(const std::vector<RitzPair>& pairs, const WantedCounts& wanted, const EigenOptions& options,
                   double rounding, bool complete) {
  const double tolerance = std::max(options.rtol * largest_magnitude(pairs), 2 * rounding);
  const double inexact = rounding + options.product_error * largest_magnitude(pairs);
  const EigenSelection selection = select_wanted(pairs, wanted, complete);
  EigenResult result;
  result.converged = selection.top.size() == wanted.top && selection.bottom.size() == wanted.bottom &&
                     selection.magnitude.size() == wanted.magnitude;
  const auto list = [&](const std::vector<std::size_t>& indices, std::vector<EigenEstimate>& estimates) {
    for (const std::size_t i : indices) {
      const double residual = pairs[i].residual + inexact;  // |β s| alone falls far below what rounding leaves of it
      estimates.push_back({.value = pairs[i].value,
                           .residual = residual,
                           .error = error_of(pairs, i, inexact),
                           .converged = residual <= tolerance});
      result.converged = result.converged && residual <= tolerance;
    }
  };
  list(selection.top, result.top);
  list(selection.bottom, result.bottom);
  list(selection.magnitude, result.magnitude);
  return result;
}

std::vector<std::size_t> kept_pairs(const std::vector<RitzPair>& pairs, const WantedCounts& wanted, std::int64_t most) {
  const std::size_t size = pairs.size(), room = std::min(size, static_cast<std::size_t>(most)) - 1;
  const std::size_t least = std::min(wanted.all(), room), count = least + (room - least) / 2;
  std::vector<std::size_t> keep;
  if (wanted.magnitude > 0) {
    keep = by_magnitude(pairs);
    keep.resize(count);
  } else {
    const std::size_t top = share(count, wanted.top, wanted.all());
    for (std::size_t i = 0; i < count; ++i) keep.push_back(i < count - top ? i : size - count + i);
  }
  std::ranges::sort(keep);
  return keep;
}

std::int64_t smallest_basis(const WantedCounts& wanted) { return static_cast<std::int64_t>(wanted.all() + kLeastRoom); }

}  // namespace hesspect
