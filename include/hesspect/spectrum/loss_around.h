// How the figures of sharpness.h are measured, by losses and gradients at steps from the parameters.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "hesspect/spectrum/sharpness.h"

namespace hesspect {

/// The loss around θ, as functions of steps: shards [chunk] with zero padding. All are collective.
struct LossAround {
  std::function<double(const at::Tensor& step)> loss;
  /// ∇L(θ + step) into `gradient`.
  std::function<void(const at::Tensor& step, at::Tensor& gradient)> gradient;
  /// a·b over all ranks.
  std::function<double(const at::Tensor& a, const at::Tensor& b)> dot;
  double at_start = 0;           // L(θ)
  at::Tensor gradient_at_start;  // g
  double rounding = 0;           // what a loss is exact to, at best
};

/// @param rho           sizes of the steps, in parameters
/// @param eigenvectors  unit vectors that are tried, both ways
std::vector<Ascent> ascents(const LossAround& around, const std::vector<double>& rho,
                            const std::vector<at::Tensor>& eigenvectors);
/// @param rho    sizes of the steps, relative to each parameter
/// @param theta  the parameters [chunk]
std::vector<Ascent> adaptive_ascents(const LossAround& around, const std::vector<double>& rho, const at::Tensor& theta);

/// Takes steps of gradient descent, and of heavy-ball momentum, along the leading eigenvector v alone and as if θ were
/// stationary: p ← p − η v·(∇L(θ + p v) − g). Both just below and just above the largest stable step. Some 80
/// gradients.
/// @param eigenvector  v, unit
/// @return nothing where λ₁ is not positive: then no step is unstable for curvature's sake
std::vector<StepCheck> check_steps(const LossAround& around, double lambda_1, const at::Tensor& eigenvector,
                                   const std::vector<double>& momenta);

/// By doubling, then halving to 2 %. @param bend  g·Hg
CriticalStep critical_step(const LossAround& around, double bend);

/// @param tolerance  above L(θ), in units of the loss
/// @param direction  the i-th random direction, any norm
/// @param norm       ‖θ‖
Basin basin(const LossAround& around, double tolerance, std::int64_t directions,
            const std::function<at::Tensor(std::int64_t i)>& direction, double norm);

}  // namespace hesspect
