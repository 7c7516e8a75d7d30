// What a run finds out, as plain structs that `io` writes and reads. Values in loss/parameter² unless said otherwise.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace hesspect {

/// Gauss quadrature of one probe: the tridiagonal matrix of its Lanczos run and its nodes and weights.
struct ProbeQuadrature {
  std::int64_t probe = 0;
  std::vector<double> alpha;      // [steps]
  std::vector<double> beta;       // [steps - 1]
  double beta_last = 0;           // norm of the residual vector after the last step
  std::vector<double> ritz;       // [steps], ascending
  std::vector<double> weight;     // [steps], squared first components of T's eigenvectors; sum to 1
  double norm_sq = 0;             // zᵀz of the unnormalised probe (n for Rademacher): tr H ≈ norm_sq · alpha[0]
  bool breakdown = false;         // an invariant subspace was found: the quadrature is exact
  double orthogonality_loss = 0;  // max |(Q'Q - I) g|, g random signs, where it was measured
};

/// Density on a grid: the mean over probes of Σ weight · Gaussian(λ - ritz, σ). For display: the answer is the
/// cumulative density.
struct Density {
  std::vector<double> lambda;          // [points]
  std::vector<double> density;         // [points], in 1/λ; integrates to 1
  std::vector<double> density_errors;  // [points], standard error over probes; 0 where there is one probe
  double sigma = 0;                    // standard deviation of the kernel, in units of λ
};

/// A number and its standard error over probes; NaN where that is not known.
struct Estimate {
  double value = 0;
  double standard_error = 0;
};

/// The cumulative spectral density F(λ) = (number of eigenvalues ≤ λ) / n, a step function, with its band.
struct CumulativeDensity {
  std::vector<double> lambda;      // [points], ascending: where F steps
  std::vector<double> cumulative;  // [points], F at and right of lambda[i]; the last is 1
  std::vector<double> lower;       // [points], of the band, pointwise at `confidence`, from lambda[i] to the next
  std::vector<double> upper;       // [points]
  double confidence = 0.9;
  std::string band;  // "jackknife" (over probes), "a priori" (fewer than 3 probes) or "exact"
  std::int64_t probes = 0;
  /// Bound of the Wasserstein-1 distance ∫|F̂ − F| dλ at `confidence`, in units of λ, and its two parts.
  double w1 = 0, w1_sampling = 0, w1_quadrature = 0, w1_precision = 0;
  double range_lo = 0, range_hi = 0;  // of the spectrum: the outermost Ritz values and their bounds
  double exact_points = 0;            // eigenvalues taken out as points of weight 1/n: mean over probes
  double zero_width = 0;              // |λ| up to which an eigenvalue counts as zero
  Estimate weight_at_zero;            // share of eigenvalues with |λ| ≤ zero_width
  Estimate negative_mass;             // share of eigenvalues below −zero_width
  std::vector<Estimate> moments;      // [4]: (1/n) Σ λ^k, k = 1 … 4
  bool converged = true;              // w1 is what was asked for, or nothing was
};

/// One eigenvalue of the operator.
struct EigenEstimate {
  static constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

  double value = 0;
  double residual = 0;  // bound of ‖A y − θ y‖ for the unit Ritz vector y: |β_q s_qi| and rounding
  double true_residual = kNotMeasured;  // ‖A y − θ y‖ by a product of its own
  double error = 0;                     // of the value: residual, or residual²/gap where the value stands well apart
  bool converged = false;
  // Of groups of rows (spectrum/data_error.h), where these are told apart.
  std::vector<double> groups = {};  // [groups] yᵀA_g y
  double data_bias = kNotMeasured;  // what y's being fitted to these rows adds to the value, about
};

struct EigenResult {
  std::vector<EigenEstimate> top;        // largest first
  std::vector<EigenEstimate> bottom;     // the smallest ones, largest of them first
  std::vector<EigenEstimate> magnitude;  // instead of both: largest |λ| first
  std::int64_t steps = 0;                // products taken for them, those of true residuals not included
  std::int64_t residual_products = 0;
  std::int64_t thick_restarts = 0;
  std::string method = "lanczos";  // "lanczos", "block lanczos" or "power"
  bool converged = false;          // all of them
  bool exhausted = false;          // the Krylov space closed (breakdown) before as many were found
  // Sums over the listed pairs, of groups of rows: Σ y ∘ A_g y and, for the first probes, Σ (yᵀz) z ∘ A_g y.
  std::vector<double> captured = {};              // [groups][segments]
  std::vector<std::vector<double>> crossed = {};  // [probes][groups][segments]
};

/// What the first product with a random vector z tells of the trace.
struct TraceSample {
  std::int64_t probe = 0;           // its number
  double quadratic_form = 0;        // zᵀHz
  double product_norm_sq = 0;       // ‖Hz‖²
  std::vector<double> layers;       // [layers], z_l · (Hz)_l: they sum to zᵀHz; empty where not asked for
  std::vector<double> groups = {};  // [groups][layers or 1], the same of each group of rows; empty: not told apart
};

/// The same of P H P, P the projection on what a Krylov space leaves over: its trace is the part that is estimated.
struct DeflatedSample {
  std::int64_t probe = 0;
  double quadratic_form = 0;
  double product_norm_sq = 0;
  std::vector<double> layers;
};

struct TraceEstimate {
  double value = 0;           // tr H
  double standard_error = 0;  // NaN where it can't be told
  double half_width = 0;      // of the confidence interval; NaN where it can't be told
  double confidence = 0.9;
  std::int64_t samples = 0;         // probes that the estimate uses
  std::int64_t products = 0;        // that were taken for the trace alone
  double captured = 0;              // part of the value that is known from the deflated space
  std::int64_t deflated = 0;        // dimensions of that space
  std::string method = "deflated";  // as of --trace-method
  bool converged = true;            // the half width is what was asked for, or nothing was
};

/// Trace of the diagonal block of one parameter tensor.
struct LayerEstimate {
  std::string name;
  std::int64_t size = 0;   // entries
  Estimate trace;          // Σ_i∈l H_ii
  Estimate mean() const {  // of the diagonal
    return {trace.value / static_cast<double>(size), trace.standard_error / static_cast<double>(size)};
  }
};

/// Hessian-vector products by what they were taken for. What one product serves beside is said in brackets.
struct ProductCount {
  std::int64_t symmetry = 0;     // (trace)
  std::int64_t first_probe = 0;  // its Lanczos run (eigenvalues, density, deflation of the trace)
  std::int64_t density = 0;      // Lanczos runs of the other probes (their first products: trace)
  std::int64_t trace = 0;        // for the trace and the layers alone
  std::int64_t eigenvalues = 0;  // block Lanczos or power iterations of their own
  std::int64_t residuals = 0;    // true residuals
  std::int64_t surplus = 0;      // by other groups, under way when the accuracy was met
};

}  // namespace hesspect
