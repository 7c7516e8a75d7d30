// The error that the data make: by how much a figure would differ on other rows of the same population, from what each
// of G groups of rows has of the products that were taken anyway.
//
// A figure that is a ratio of sums over rows, as every mean is, has with N_g and f_g the parts of group g (Σ f_g = 1)
//   F = Σ N_g,   s² = G/(G−1) Σ (N_g − F f_g)²   (the delta method; Cochran, Sampling Techniques, §6),
// and F ± t s, t Student's quantile of G − 1 degrees. Groups count as drawn independently: rows of one document, user
// or day that are neighbours in the file are so only as far as they lie in one group.
//
//   eigenvalue  N_g = uᵀH_g u, first order in H_g (for a simple eigenvalue). u is fitted to these rows: E λ̂ − λ is
//               about Σ_j (u_jᵀΔu)²/(λ − λ_j), of which ‖Δu‖²/λ, Δ = Σ_g (H_g − f_g H), is what lies far below.
//   trace       tr H_g, unknown, from two probes z: zᵀH_g z has the noise of H_g's off-diagonal entries, which
//               eigenvectors take out: with U those of the eigenvalues found, and P = I − UUᵀ,
//               tr H_g = tr UᵀH_gU + E zᵀH_gPz. What noise is left makes s larger, in the mean, never smaller.
//               Without eigenvectors s is that of zᵀH_g z over zᵀHz times the trace, for each probe by itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hesspect/core/data_error.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// Standard error of a ratio of sums over rows, from its parts in each group.
/// @param parts, share  [groups]
double ratio_error(std::span<const double> parts, std::span<const double> share);

/// What a product with a unit eigenvector u says of each group of rows, for probes z.
struct GroupedProduct {
  std::vector<double> dots;     // [groups][1 + probes][segments]: u · H_g u, then z · H_g u
  std::vector<double> overlap;  // [probes], uᵀz
};

/// Puts what products with the listed eigenvectors say of each group into the result. @param share  [groups]
void add_groups(std::span<const GroupedProduct> products, std::span<const double> share, EigenResult& result);

/// What a result knows, as far as it is there.
struct DataErrorInputs {
  const RowGroups& groups;
  double confidence = 0.9;
  double loss = 0;
  std::span<const TraceSample> samples;  // with groups: the first probes
  const EigenResult* eigenvalues = nullptr;
  std::span<const double> ritz;  // of a Lanczos run: neighbours of the last listed eigenvalues; may be empty
  const TraceEstimate* trace = nullptr;
  std::span<const LayerEstimate> layers;  // none where the samples' segments are not the layers
};

DataError estimate_data_error(const DataErrorInputs& inputs);

/// ‖H‖_F as the run has it, and what is known of the listed eigenvalues.
struct NormInputs {
  double value = 0, lower = 0, upper = 0;  // the run's own interval
  double confidence = 0.9;
  std::span<const double> eigenvalues;     // listed, once each
  std::span<const EigenDataError> errors;  // of these
  std::span<const double> share;           // [groups]
};

/// The population's ‖H‖_F, where the listed eigenvalues make nine tenths of ‖H‖_F² and more; else nothing is known.
///
/// To first order ‖H‖_F² moves with the groups as Σ 2 λ_i u_iᵀH_g u_i does, whether or not the eigenvalues stand apart.
/// The rest is taken to move in proportion. Noise adds to the sum of squares in the mean, Σ (2 λ_i b_i + s_i²) to those
/// listed, b_i their bias and s_i their error, and to the rest possibly all of it: the interval reaches as much further
/// down.
/// @param captured  set to the share that the listed eigenvalues make
PopulationInterval norm_of_population(const NormInputs& inputs, double& captured);

}  // namespace hesspect
