// Results of spectra that are known to the last eigenvalue.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "hesspect/io/result_file.h"
#include "hesspect/spectrum/cumulative.h"

namespace hesspect::testing {

/// A run that has found all of them: its density is exact.
inline RunResult known_result(std::vector<double> eigenvalues, std::int64_t top = 5, std::int64_t bottom = 1) {
  std::ranges::sort(eigenvalues);
  const auto n = static_cast<std::int64_t>(eigenvalues.size());
  ProbeQuadrature q;
  q.alpha = q.ritz = eigenvalues;
  q.beta.assign(eigenvalues.size() - 1, 0.0);
  q.weight.assign(eigenvalues.size(), 1.0 / static_cast<double>(n));
  q.norm_sq = static_cast<double>(n);
  q.breakdown = true;
  RunResult r;
  r.quadrature = {q};
  r.cumulative = cumulative_density(r.quadrature, n);
  r.eigenvalues.emplace();
  for (std::int64_t i = 0; i < std::min(top, n); ++i)
    r.eigenvalues->top.push_back({eigenvalues[static_cast<std::size_t>(n - 1 - i)], 1e-3, 1e-3, 1e-3, true});
  for (std::int64_t i = std::min(bottom, n) - 1; i >= 0; --i)
    r.eigenvalues->bottom.push_back({eigenvalues[static_cast<std::size_t>(i)], 1e-3, 1e-3, 1e-3, true});
  r.eigenvalues->steps = 40;
  r.eigenvalues->converged = true;
  r.diagnostics.parameters = n;
  r.diagnostics.rows = 100;
  r.process.curvature = "hessian";
  r.process.loss_kind = "mse";
  r.process.dtype = "float64";
  return r;
}

}  // namespace hesspect::testing
