#include "hesspect/krylov/tridiagonal_eigen.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

constexpr int kIterations = 60;  // of QL per eigenvalue; two or three are usual

/// Implicit QL with Wilkinson's shift, its rotations applied to the first and last row of the eigenvectors alone: O(m)
/// memory, O(m²) time. Source: Golub & Welsch, Math. Comp. 23 (1969); EISPACK imtql2
/// @return false where it did not converge (a non-finite entry, in practice)
bool two_rows(std::vector<double> d, std::vector<double> e, TridiagonalEigen& result) {
  const std::size_t m = d.size();
  std::vector<double> first(m, 0.0), last(m, 0.0);
  first.front() = last.back() = 1;
  e.resize(m, 0.0);
  e[m - 1] = 0;
  for (std::size_t l = 0; l < m; ++l) {
    for (int iteration = 0;; ++iteration) {
      std::size_t k = l;
      while (k + 1 < m &&
             std::abs(e[k]) > std::numeric_limits<double>::epsilon() * (std::abs(d[k]) + std::abs(d[k + 1])))
        ++k;
      if (k == l) break;
      if (iteration == kIterations) return false;
      double g = (d[l + 1] - d[l]) / (2 * e[l]), r = std::hypot(g, 1.0);
      g = d[k] - d[l] + e[l] / (g + std::copysign(r, g));
      double s = 1, c = 1, p = 0;
      std::size_t i = k;
      while (i > l) {
        --i;
        const double f = s * e[i], b = c * e[i];
        r = std::hypot(f, g);
        e[i + 1] = r;
        if (r == 0) {  // the matrix has split
          d[i + 1] -= p;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        for (std::vector<double>* row : {&first, &last}) {
          const double above = (*row)[i + 1];
          (*row)[i + 1] = s * (*row)[i] + c * above;
          (*row)[i] = c * (*row)[i] - s * above;
        }
        if (i == l) {
          d[l] -= p;
          e[l] = g;
        }
      }
      e[k] = 0;
    }
  }
  std::vector<std::size_t> order(m);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return d[a] < d[b]; });
  for (const std::size_t i : order) {
    result.values.push_back(d[i]);
    result.first.push_back(first[i]);
    result.last.push_back(last[i]);
  }
  return true;
}

}  // namespace

TridiagonalEigen tridiagonal_eigen(std::span<const double> alpha, std::span<const double> beta, bool vectors) {
  const at::NoGradGuard no_grad;
  const std::size_t m = alpha.size();
  TridiagonalEigen result;
  if (m == 0) return result;
  if (beta.size() + 1 < m) throw Error(ExitCode::kInternal, "tridiagonal_eigen: the off-diagonal is too short");
  if (!vectors &&
      two_rows({alpha.begin(), alpha.end()}, {beta.begin(), beta.begin() + static_cast<std::ptrdiff_t>(m - 1)}, result))
    return result;

  return arrow_eigen({}, {}, alpha, beta, vectors);
}

TridiagonalEigen arrow_eigen(std::span<const double> theta, std::span<const double> coupling,
                             std::span<const double> alpha, std::span<const double> beta, bool vectors) {
  const at::NoGradGuard no_grad;
  const std::size_t kept = theta.size(), m = kept + alpha.size();
  TridiagonalEigen result;
  if (m == 0) return result;
  at::Tensor matrix = at::zeros({static_cast<std::int64_t>(m), static_cast<std::int64_t>(m)}, at::kDouble);
  double* entries = matrix.mutable_data_ptr<double>();
  for (std::size_t i = 0; i < kept; ++i) {
    entries[i * m + i] = theta[i];
    if (kept < m) entries[kept * m + i] = entries[i * m + kept] = coupling[i];
  }
  for (std::size_t i = kept; i < m; ++i) {
    entries[i * m + i] = alpha[i - kept];
    if (i + 1 < m) entries[(i + 1) * m + i] = entries[i * m + i + 1] = beta[i - kept];
  }
  const auto [values, columns] = at::linalg_eigh(matrix, "L");
  const at::Tensor rows = columns.t().contiguous();  // eigenvector i in row i
  const double* s = rows.const_data_ptr<double>();
  const double* value = values.const_data_ptr<double>();
  result.values.assign(value, value + m);
  for (std::size_t i = 0; i < m; ++i) {
    result.first.push_back(kept < m ? s[i * m + kept] : 0);
    result.last.push_back(s[i * m + m - 1]);
  }
  if (vectors) result.vectors.assign(s, s + m * m);
  return result;
}

}  // namespace hesspect
