#include "vector_blocks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "hesspect/core/errors.h"

namespace hesspect {

std::vector<at::Tensor> vector_block(const LinearOperator& op) {
  std::vector<at::Tensor> all;
  for (std::int64_t i = 0; i < kTogether; ++i) all.push_back(at::empty({op.shard().chunk}, op.options()));
  return all;
}

void for_blocks(std::int64_t count, const std::function<void(std::int64_t first, std::int64_t size)>& use) {
  for (std::int64_t first = 0; first < count; first += kTogether) use(first, std::min(kTogether, count - first));
}

std::vector<double> without_norms(std::span<const double> sums, std::size_t vectors) {
  const std::size_t width = sums.size() / vectors;
  std::vector<double> all;
  for (std::size_t k = 0; k < vectors; ++k)
    all.insert(all.end(), sums.begin() + static_cast<std::ptrdiff_t>(k * width),
               sums.begin() + static_cast<std::ptrdiff_t>((k + 1) * width - 1));
  return all;
}

void require_finite(double sum, std::int64_t products) {
  if (!std::isfinite(sum))
    throw NumericalError(products, sum,
                         "one of the first " + std::to_string(products) + " products is not finite (a sum over it is " +
                             std::to_string(sum) + "): loss or weights overflow, or hold NaN");
}

}  // namespace hesspect
