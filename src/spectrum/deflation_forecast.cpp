#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/deflation.h"

namespace hesspect {

DeflationForecast::DeflationForecast(std::vector<TraceSample> samples, std::vector<at::Tensor> z)
    : samples_(std::move(samples)), z_(std::move(z)), d_(samples_.size()) {}

void DeflationForecast::update(const Lanczos& run) {
  thick_ = !run.t().thick_restarts.empty();
  if (thick_ || samples_.empty()) return;

  const auto known = static_cast<std::int64_t>(d_.front().size());
  const std::vector<at::Tensor> fresh = rows_of(run.basis_rows(), known, run.t().rows() + 1 - known);
  for (std::size_t s = 0; s < samples_.size(); ++s) {
    const std::vector<double> sums = run.comm().sum(dots(fresh, z_[s]));
    d_[s].insert(d_[s].end(), sums.begin(), sums.end() - 1);
  }

  // The formulas of deflation.cpp for a tridiagonal T, at every number of steps.
  const std::vector<double>&alpha = run.t().alpha, &beta = run.t().beta;
  points_.assign(alpha.size() + 1, {});
  const double share = 1 / static_cast<double>(samples_.size());
  for (std::size_t s = 0; s < samples_.size(); ++s) {
    const auto d = [&](std::size_t j) { return j < d_[s].size() ? d_[s][j] : 0.0; };
    double taken = 0, taken_sq = 0, captured = 0;  // over the rows of V
    points_[0].remainder_sq += share * samples_[s].product_norm_sq;
    points_[0].trace += share * samples_[s].quadratic_form;
    for (std::size_t r = 0; r < alpha.size(); ++r) {  // V of r rows, after r + 1 steps
      const double c = r > 0 ? beta[r - 1] * d(r - 1) : 0;
      const double h = c + alpha[r] * d(r) + beta[r] * d(r + 1);
      points_[r + 1].remainder_sq += share * (samples_[s].product_norm_sq - taken_sq + c * (c - 2 * h));
      points_[r + 1].trace += share * (samples_[s].quadratic_form - taken - c * d(r) + captured);
      taken += d(r) * h;
      taken_sq += h * h;
      captured += alpha[r];
    }
  }
}

double DeflationForecast::products_at(std::int64_t steps, double rtol, double quantile, double floor) const {
  // At every step the trace that is known best: its noise must not pass for a gain or a loss between steps.
  const double target = rtol * std::max(std::abs(points_.back().trace), floor) / quantile;
  const double remainder_sq = std::max(0.0, points_.at(static_cast<std::size_t>(steps)).remainder_sq);
  const double probes = remainder_sq > 0 ? 2 * remainder_sq / (target * target) : 0;
  return static_cast<double>(steps) + std::max(static_cast<double>(samples_.size()), probes);
}

bool DeflationForecast::pays(std::int64_t window, double rtol, double quantile, double floor) const {
  if (thick_ || samples_.empty() || points_.empty() || !(rtol > 0)) return false;
  const auto steps = static_cast<std::int64_t>(points_.size()) - 1;
  // Where a few probes suffice by themselves, no step pays.
  if (steps < window) return !(products_at(0, rtol, quantile, floor) <= static_cast<double>(window));
  const double before = products_at(steps - window, rtol, quantile, floor),
               now = products_at(steps, rtol, quantile, floor);
  return now < before || (std::isinf(now) && std::isinf(before));
}

}  // namespace hesspect
