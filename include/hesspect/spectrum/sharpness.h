// Sharpness as the loss itself shows it: what finite steps of a known kind do to it.
//
// * SAM at ρ: L(θ + ε) − L(θ), ‖ε‖ = ρ, along the gradient and along the leading eigenvectors. The worst of these is a
//   lower bound of the maximum over the ball (Foret, Kleiner, Mobahi & Neyshabur, 2010.01412).
// * Adaptive: the same with ‖ε ⊘ |θ|‖ = ρ (Kwon, Kim, Park & Choi, 2102.11600; Andriushchenko et al., 2302.07011).
// * Stable steps: gradient descent just below 2/λ₁ contracts along the leading eigenvector, just above it grows.
// * Critical step: the smallest η along −g that raises the loss; 2/η is the critical sharpness (Kalra et al.,
//   2601.16979).
// * Basin: how far the loss stays within a tolerance along random directions (after Chen et al., 2505.17646, who take a
//   benchmark's score).
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/spectrum/measures.h"

namespace hesspect {

/// L(θ + ε) − L(θ) for steps of one size.
struct Ascent {
  double rho = 0;
  bool adaptive = false;
  double gradient = 0;     // ε along g, or θ²∘g
  double eigenvector = 0;  // the largest of ±ε along the eigenvectors; NaN for adaptive ones
  double first_order = 0;  // ρ‖g‖, or ρ‖|θ|∘g‖: what the gradient alone says of the first
  double worst() const;    // of what was tried
};

/// How an optimiser's distance along the leading eigenvector grows, a step.
struct StepCheck {
  std::string optimizer;                          // "gradient descent", "momentum 0.9"
  double largest_step = 0;                        // 2/λ₁, 2(1 + β)/λ₁
  double below = 0, above = 0;                    // growth a step, measured, at `kStepMargin` below and above it
  double expected_below = 0, expected_above = 0;  // of a quadratic loss
  bool confirmed() const { return below < 1 && above > 1; }
};

/// Of the step that is tried below and above the largest stable one.
inline constexpr double kStepMargin = 0.05;

/// The Hessian as Adam sees it: D^-1/2 H D^-1/2 with D = √v̂ + ε, held fixed. Its largest eigenvalue is that of D^-1 H.
/// Source: Cohen et al., Adaptive Gradient Methods at the Edge of Stability, 2207.14484, §2
struct AdamSharpness {
  double lambda_1 = 0, lambda_1_error = 0;
  bool converged = false;
  std::int64_t products = 0;
  double largest_rate = 0;                // 2 (1 + β₁) / ((1 − β₁) λ₁)
  std::vector<StepCheck> steps;           // by real gradients: none where they were not asked for
  double beta1 = 0, beta2 = 0;            // as they were taken
  double eps_least = 0, eps_most = 0;     // over parameter groups
  double step_fewest = 0, step_most = 0;  // updates so far; 0: not known, v̂ = v
  bool largest = false;                   // amsgrad's v̂, the largest so far
  std::string file, sha256, format;
};

/// Adam's largest stable learning rate with D held fixed: heavy ball of β₁ with the step η (1 − β₁).
inline double adam_rate(double beta1, double lambda_1) { return 2 * (1 + beta1) / ((1 - beta1) * lambda_1); }

/// What one diagonal block alone allows, all other parameters held fixed. NaN: not known, not asked for, or none.
struct BlockSteps {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  std::string name;
  std::int64_t parameters = 0;
  double lambda_1 = kUnknown, lambda_1_error = kUnknown;
  double step = kUnknown;  // 2/λ₁, of gradient descent; none where λ₁ is not above 0
  double growth_below = kUnknown, growth_above = kUnknown;  // a step, by real gradients, as StepCheck
  double adam_lambda_1 = kUnknown, adam_lambda_1_error = kUnknown;
  double adam_rate = kUnknown;
  double adam_growth_below = kUnknown, adam_growth_above = kUnknown;
  bool converged = true;  // both eigenvalues, as far as they were asked for
  std::int64_t products = 0;
};

struct StepsByBlock {
  std::vector<BlockSteps> each;
};

struct CriticalStep {
  double step = 0;         // between the last that lowered the loss and the first that did not; NaN: not found
  double sharpness = 0;    // 2/step; NaN
  double directional = 0;  // g·Hg / g·g, which it is for a quadratic loss
};

struct Basin {
  double tolerance = 0;        // how far the loss may rise, in units of the loss
  std::vector<double> radius;  // of each random direction, in ‖θ‖; infinite: not left as far as was looked
};

struct Sharpness {
  double loss = 0;
  double gradient_norm = 0, parameter_norm = 0;
  double lambda_1 = 0, lambda_1_error = 0;
  std::vector<Ascent> ascents;
  std::vector<StepCheck> steps;
  std::optional<AdamSharpness> adam;         // where second moments were given
  std::optional<StepsByBlock> blocks;        // where blocks were asked for
  std::optional<Information> information;    // where random vectors for it were asked for
  std::optional<RelativeFlatness> flatness;  // likewise
  CriticalStep critical;
  Basin basin;
};

}  // namespace hesspect
