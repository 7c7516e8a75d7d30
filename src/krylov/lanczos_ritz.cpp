// What is read off a run: Ritz pairs, Ritz vectors, orthogonality. None of it changes the run.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "hesspect/core/errors.h"
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

double Lanczos::orthogonality_loss() const {
  const at::NoGradGuard no_grad;
  if (!full()) throw Error(ExitCode::kInternal, "Lanczos::orthogonality_loss needs full re-orthogonalisation");
  double loss = 0;
  for (std::int64_t i = 0; i < steps(); ++i) {
    const at::Tensor vector = basis_.row(i).to(work_.options());
    const std::vector<double> gram = reduced(dots(basis_.head(i + 1), vector));
    for (std::int64_t j = 0; j <= i; ++j)
      loss = std::max(loss, std::abs(gram[static_cast<std::size_t>(j)] - (i == j ? 1.0 : 0.0)));
  }
  return loss;
}

}  // namespace hesspect
