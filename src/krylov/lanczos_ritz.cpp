// What is read off a run: Ritz pairs, Ritz vectors, orthogonality. None of it changes the run.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "hesspect/core/errors.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/krylov/tridiagonal.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {

std::vector<RitzPair> Lanczos::ritz_pairs() const {
  std::vector<RitzPair> pairs;
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    const Block& block = blocks_[b];
    const auto size = static_cast<std::size_t>(block.size()), begin = static_cast<std::size_t>(block.begin);
    const TridiagonalEigen eigen =
        tridiagonal_eigen(std::span(alpha_).subspan(begin, size), std::span(beta_).subspan(begin, size));
    for (std::size_t i = 0; i < size; ++i)
      pairs.push_back({eigen.values[i], std::abs(block.residual_norm * eigen.last[i]), eigen.first[i], b});
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const RitzPair& a, const RitzPair& b) { return a.value < b.value; });
  return pairs;
}

at::Tensor Lanczos::ritz_vector(std::span<const double> s, std::size_t block) const {
  const at::NoGradGuard no_grad;
  if (!full()) throw Error(ExitCode::kInternal, "Lanczos::ritz_vector needs full re-orthogonalisation");
  if (block >= blocks_.size() || static_cast<std::int64_t>(s.size()) != blocks_[block].size())
    throw Error(ExitCode::kInternal, "Lanczos::ritz_vector: the coefficients don't fit the block");
  std::vector<double> negative(static_cast<std::size_t>(blocks_[block].end), 0.0);
  for (std::size_t i = 0; i < s.size(); ++i) negative[static_cast<std::size_t>(blocks_[block].begin) + i] = -s[i];
  at::Tensor vector = at::zeros_like(work_);
  subtract(basis_.head(blocks_[block].end), negative, vector);
  return vector;
}

// E = QᵀQ − I through E g, with g of random signs: whichever pair of rows has the largest entry of E, the others in its
// row add to it as often as they take away.
double Lanczos::orthogonality_loss() const {
  const at::NoGradGuard no_grad;
  if (!full()) throw Error(ExitCode::kInternal, "Lanczos::orthogonality_loss needs full re-orthogonalisation");
  const std::vector<at::Tensor> rows = basis_.head(steps());
  std::vector<double> g(static_cast<std::size_t>(steps()));
  fill_probe(ProbeDistribution::kRademacher, /*seed=*/0, /*probe=*/0, 0, steps(), g.data());
  std::vector<double> negative(g.size());
  std::ranges::transform(g, negative.begin(), std::negate());
  at::Tensor sum = work_;  // free between steps
  subtract(rows, negative, sum.zero_());
  const std::vector<double> image = reduced(dots(rows, sum));
  double loss = 0;
  for (std::size_t i = 0; i < g.size(); ++i) loss = std::max(loss, std::abs(image[i] - g[i]));
  return loss;
}

}  // namespace hesspect
