#include "hesspect/spectrum/distance.h"

#include <cmath>

#include "hesspect/spectrum/trace.h"

namespace hesspect {

void weigh_by_distance(InitialDistance& initial, const std::vector<LayerEstimate>& layers,
                       std::span<const double> captured, std::span<const DeflatedSample> samples, double confidence,
                       double rounding) {
  std::vector<double> weights;
  double known = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    LayerDistance& layer = initial.layers.at(l);
    weights.push_back(layer.distance * layer.distance);
    layer.weighted = {weights[l] * layers[l].trace.value, weights[l] * layers[l].trace.standard_error};
    if (!captured.empty()) known += weights[l] * captured[l];
  }
  TraceSums sums;
  for (const DeflatedSample& sample : samples) {
    double weighted = 0;
    for (std::size_t l = 0; l < weights.size(); ++l) weighted += weights[l] * sample.layers.at(l);
    sums.add({sample.probe, weighted, 0, {}});
  }
  initial.samples = sums.count();
  initial.confidence = confidence;
  initial.weighted_trace = {known + sums.mean(), sums.spread()};
  if (sums.count() < 2) return;
  // As wide for optional stopping as the trace's own interval, which decided how many samples there are.
  initial.half_width =
      sampled_quantile(confidence, sums.count()) * sums.spread() + rounding * std::abs(initial.weighted_trace.value);
}

}  // namespace hesspect
