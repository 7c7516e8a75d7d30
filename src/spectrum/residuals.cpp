// Eigenvectors of a Lanczos run, and the true residuals of pairs.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "eigen_lists.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/second_pass.h"

namespace hesspect {

VectorSource eigenvectors(const Lanczos& run, const EigenPairs& pairs) {
  if (!run.full())
    throw UsageError("eigenvectors need full re-orthogonalisation: without it the Krylov basis is not kept");
  if (run.t().thick_restarts.size() != pairs.t.thick_restarts.size())
    throw Error(ExitCode::kInternal,
                "eigenvectors: a thick restart has replaced the rows that these pairs were made of");
  const auto rows = static_cast<std::size_t>(pairs.t.rows());
  // Each rank solves for T's eigenvectors by itself: rank 0's count, or the shards would not be of one vector.
  std::vector<double> coefficients =
      run.comm().of_rank0(agreed(run.comm(), [&] { return pairs.t.ritz_coefficients(pairs.indices); }));
  return [&run, rows, s = std::move(coefficients)](std::size_t i) {
    return run.ritz_vector(std::span(s).subspan(i * rows, rows));
  };
}

namespace {

/// @param then  a T of which `now` has the first steps, or as many
double largest_difference(const Tridiagonal& now, const Tridiagonal& then) {
  double largest = 0;
  for (std::size_t m = 0; m < std::min(now.alpha.size(), then.alpha.size()); ++m)
    largest = std::max({largest, std::abs(now.alpha[m] - then.alpha[m]), std::abs(now.beta[m] - then.beta[m])});
  return largest > 0 ? largest / then.scale() : 0;
}

}  // namespace

VectorSource eigenvectors_by_second_pass(LinearOperator& op, const at::Tensor& start_local,
                                         const LanczosOptions& options, const EigenPairs& pairs,
                                         const std::function<void()>& on_step) {
  return second_pass(op, start_local, options, pairs, on_step).vectors;
}

SecondPass second_pass(LinearOperator& op, const at::Tensor& start_local, const LanczosOptions& options,
                       const EigenPairs& pairs, const std::function<void()>& on_step) {
  const at::NoGradGuard no_grad;
  Communicator& comm = op.comm();
  const auto rows = static_cast<std::size_t>(pairs.t.rows()), count = pairs.indices.size();
  std::vector<double> s = comm.of_rank0(agreed(comm, [&] { return pairs.t.ritz_coefficients(pairs.indices); }));
  std::vector<at::Tensor> vectors;
  agree(comm, [&] {
    for (std::size_t k = 0; k < count; ++k) vectors.push_back(at::zeros({op.shard().chunk}, op.options()));
  });
  LanczosOptions none = options;
  none.reorthogonalisation = Reorthogonalisation::kNone;
  Lanczos run(op, start_local, none);
  for (std::size_t m = 0; m < rows; ++m) {
    const at::Tensor row = run.stored().basis(static_cast<std::int64_t>(m));
    for (std::size_t k = 0; k < count; ++k) vectors[k].add_(row, s[k * rows + m]);
    if (m + 1 == rows || run.extend(op, 1) == 0) break;
    if (on_step) on_step();
  }
  std::vector<double> norms;
  for (const at::Tensor& vector : vectors) norms.push_back(norm_sq(vector));
  norms = comm.sum(std::move(norms));
  for (std::size_t k = 0; k < count; ++k)
    if (norms[k] > 0) vectors[k].div_(std::sqrt(norms[k]));
  return {[kept = std::move(vectors)](std::size_t i) { return kept.at(i).clone(); },
          largest_difference(run.t(), pairs.t)};
}

void measure_residuals(LinearOperator& op, const VectorSource& vectors, EigenResult& result, std::int64_t together,
                       const std::function<void()>& on_step) {
  const at::NoGradGuard no_grad;
  std::vector<EigenEstimate*> all;
  for (auto* list : {&result.top, &result.bottom, &result.magnitude})
    for (EigenEstimate& one : *list) all.push_back(&one);
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(1, together));
  for (std::size_t begin = 0; begin < all.size(); begin += most) {
    const std::size_t count = std::min(most, all.size() - begin);
    std::vector<at::Tensor> y, image;
    agree(op.comm(), [&] {
      for (std::size_t i = 0; i < count; ++i) {
        y.push_back(vectors(begin + i));
        image.push_back(at::empty_like(y.back()));
      }
    });
    op.apply_block(y, image);
    std::vector<double> sums;  // ‖A y − θ y‖² and ‖y‖² of each
    for (std::size_t i = 0; i < count; ++i) {
      const at::Tensor row[1] = {y[i].unsqueeze(0)};
      const double theta[1] = {all[begin + i]->value};
      sums.push_back(subtract(row, theta, image[i]));
      sums.push_back(norm_sq(y[i]));
    }
    sums = op.comm().sum(std::move(sums));
    for (std::size_t i = 0; i < count; ++i) {
      const double residual = std::sqrt(sums[2 * i] / sums[2 * i + 1]);
      if (!std::isfinite(residual))
        throw NumericalError(result.residual_products + static_cast<std::int64_t>(i), residual,
                             "the product with eigenvector " + std::to_string(begin + i) +
                                 " is not finite: loss or weights overflow, or hold NaN");
      all[begin + i]->true_residual = residual;
    }
    result.residual_products += static_cast<std::int64_t>(count);
    if (on_step) on_step();
  }
}

}  // namespace hesspect
