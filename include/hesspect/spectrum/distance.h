// How far training has moved the parameters, and the curvature of the layers weighted by it.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct LayerDistance {
  std::string name;                                                // parameter tensor
  std::int64_t entries = 0;                                        // that the distance is over: those that vectors hold
  double distance = 0;                                             // ‖θ_l − θ0_l‖
  Estimate weighted{std::numeric_limits<double>::quiet_NaN(), 0};  // tr(H_l) ‖θ_l − θ0_l‖²; NaN: no trace was asked for
};

/// From the initial parameters θ0 to those that the run had.
struct InitialDistance {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  std::vector<std::string> files, sha256;  // that θ0 was read from
  std::vector<LayerDistance> layers;       // in the model's order
  double distance = 0;                     // ‖θ − θ0‖
  /// Σ_l tr(H_l) ‖θ_l − θ0_l‖², and the half width of its confidence interval.
  Estimate weighted_trace{kUnknown, kUnknown};
  double half_width = kUnknown, confidence = 0.9;
  std::int64_t samples = 0;  // that it is from
};

/// Sets what is weighted by the distances. A random vector's share of each layer is weighted before the mean over
/// vectors is taken, so that the error of the sum knows how the layers' errors hang together.
/// @param layers    of the same tensors in the same order
/// @param captured  [layers] of the traces, known exactly; empty: nothing
/// @param rounding  of products, over the value
void weigh_by_distance(InitialDistance& initial, const std::vector<LayerEstimate>& layers,
                       std::span<const double> captured, std::span<const DeflatedSample> samples, double confidence,
                       double rounding);

}  // namespace hesspect
