// What a run finds out, as plain structs that `io` writes and reads. Values in loss/parameter² unless said otherwise.
#pragma once

#include <cstdint>
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

/// Density on a grid: the mean over probes of Σ weight · Gaussian(λ - ritz, σ).
struct Density {
  std::vector<double> lambda;          // [points]
  std::vector<double> density;         // [points], in 1/λ; integrates to 1
  std::vector<double> density_errors;  // [points], standard error over probes; 0 where there is one probe
  double sigma = 0;                    // standard deviation of the kernel, in units of λ
};

/// One eigenvalue of the operator.
struct EigenEstimate {
  double value = 0;
  double residual = 0;  // bound of ‖A y − θ y‖ for the unit Ritz vector y: |β_q s_qi| and the products' rounding
  bool converged = false;
};

struct EigenResult {
  std::vector<EigenEstimate> top;     // largest first
  std::vector<EigenEstimate> bottom;  // the smallest ones, largest of them first
  std::int64_t steps = 0;             // Lanczos steps taken
  bool converged = false;             // all of them
  bool exhausted = false;             // the Krylov space closed (breakdown) before as many were found
};

struct TraceEstimate {
  double value = 0;           // tr H
  double standard_error = 0;  // 0 and samples = 1 where it can't be told
  std::int64_t samples = 0;
};

}  // namespace hesspect
