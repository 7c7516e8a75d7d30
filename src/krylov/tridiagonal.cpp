#include "hesspect/krylov/tridiagonal.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "hesspect/core/errors.h"

namespace hesspect {

TridiagonalEigen tridiagonal_eigen(std::span<const double> alpha, std::span<const double> beta, bool vectors) {
  const at::NoGradGuard no_grad;
  const std::size_t m = alpha.size();
  TridiagonalEigen result;
  if (m == 0) return result;
  if (beta.size() + 1 < m) throw Error(ExitCode::kInternal, "tridiagonal_eigen: the off-diagonal is too short");

  at::Tensor matrix = at::zeros({static_cast<std::int64_t>(m), static_cast<std::int64_t>(m)}, at::kDouble);
  double* entries = matrix.mutable_data_ptr<double>();
  for (std::size_t i = 0; i < m; ++i) {
    entries[i * m + i] = alpha[i];
    if (i + 1 < m) entries[(i + 1) * m + i] = entries[i * m + i + 1] = beta[i];
  }
  const auto [values, columns] = at::linalg_eigh(matrix, "L");
  const at::Tensor rows = columns.t().contiguous();  // eigenvector i in row i
  const double* s = rows.const_data_ptr<double>();
  const double* theta = values.const_data_ptr<double>();
  result.values.assign(theta, theta + m);
  for (std::size_t i = 0; i < m; ++i) {
    result.first.push_back(s[i * m]);
    result.last.push_back(s[i * m + m - 1]);
  }
  if (vectors) result.vectors.assign(s, s + m * m);
  return result;
}

}  // namespace hesspect
