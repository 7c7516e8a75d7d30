#include "hesspect/spectrum/data_error.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hesspect/spectrum/trace.h"

namespace hesspect {
namespace {

constexpr double kNotTold = PopulationInterval::kUnknown;
/// An eigenvalue's distance to its neighbours, in standard errors, from which on it counts as simple over the data.
constexpr double kApart = 2;
/// A probe whose zᵀHz is less than this of the trace says nothing relative to it.
constexpr double kLeastProbe = 0.25;

double sum_of(std::span<const double> values) { return std::accumulate(values.begin(), values.end(), 0.0); }

/// The columns' sums of [groups][segments], or one column.
std::vector<double> by_group(std::span<const double> table, std::size_t groups, std::size_t first, std::size_t last) {
  std::vector<double> sums(groups, 0.0);
  const std::size_t segments = table.size() / groups;
  for (std::size_t g = 0; g < groups; ++g)
    for (std::size_t s = first; s < std::min(last, segments); ++s) sums[g] += table[g * segments + s];
  return sums;
}

std::vector<EigenEstimate*> listed(EigenResult& result) {
  std::vector<EigenEstimate*> all;
  for (auto* list : {&result.top, &result.bottom, &result.magnitude})
    for (EigenEstimate& one : *list) all.push_back(&one);
  return all;
}

class Estimates {
 public:
  explicit Estimates(const DataErrorInputs& in)
      : in_(in),
        count_(static_cast<std::size_t>(in.groups.count())),
        quantile_(student_quantile(in.confidence, in.groups.count() - 1)) {
    for (const TraceSample& sample : in.samples)
      if (!sample.groups.empty() && sample.groups.size() % count_ == 0) samples_.push_back(&sample);
  }

  DataError all() {
    DataError e;
    e.groups = in_.groups;
    e.confidence = in_.confidence;
    e.loss_value = in_.loss;
    e.loss.error = ratio_error(in_.groups.loss, in_.groups.share);
    e.loss.lower = in_.loss - quantile_ * e.loss.error;
    e.loss.upper = in_.loss + quantile_ * e.loss.error;
    add_eigenvalues(e);
    add_trace(e);
    add_layers(e);
    return e;
  }

 private:
  void add_eigenvalues(DataError& e) const {
    if (in_.eigenvalues == nullptr) return;
    const EigenResult& result = *in_.eigenvalues;
    for (const auto* list : {&result.top, &result.bottom, &result.magnitude})
      for (const EigenEstimate& one : *list) {
        const bool is_known = one.groups.size() == count_;
        EigenDataError& its = e.eigenvalues.emplace_back(is_known ? of_eigenvalue(one) : EigenDataError{});
        its.of_group.assign(count_, kNotTold);
        for (std::size_t g = 0; is_known && g < count_; ++g) its.of_group[g] = one.groups[g] / in_.groups.share[g];
      }
    if (std::ranges::all_of(e.eigenvalues, [](const EigenDataError& one) { return std::isnan(one.interval.error); }))
      e.eigenvalues.clear();
  }

  EigenDataError of_eigenvalue(const EigenEstimate& one) const {
    EigenDataError its;
    its.interval.error = ratio_error(one.groups, in_.groups.share);
    its.bias = one.data_bias;
    if (distance_to_next(one) < kApart * its.interval.error) return its;  // others mix with it from data to data
    const double width = std::abs(one.error) + quantile_ * its.interval.error;
    its.interval.lower = one.value - width - std::max(0.0, its.bias);
    its.interval.upper = one.value + width - std::min(0.0, its.bias);
    return its;
  }

  /// To the nearest other value that is listed, or that the Lanczos run has seen.
  double distance_to_next(const EigenEstimate& one) const {
    double least = HUGE_VAL, least_listed = HUGE_VAL;
    bool run_has_seen_more = false;
    const EigenResult& result = *in_.eigenvalues;
    for (const auto* list : {&result.top, &result.bottom, &result.magnitude})
      for (const EigenEstimate& other : *list)
        if (&other != &one) least_listed = std::min(least_listed, std::abs(other.value - one.value));
    // The run has the value itself, too: the node nearest to it.
    std::vector<double> distances;
    for (const double node : in_.ritz) distances.push_back(std::abs(node - one.value));
    std::ranges::sort(distances);
    if (distances.size() > 1) {
      least = distances[1];
      run_has_seen_more = true;
    }
    // The innermost of a list has a neighbour that may not be listed.
    const auto is_last = [&](const std::vector<EigenEstimate>& list, bool back) {
      return !list.empty() && &(back ? list.back() : list.front()) == &one;
    };
    const bool is_innermost =
        is_last(result.top, true) || is_last(result.bottom, false) || is_last(result.magnitude, true);
    if (is_innermost && !run_has_seen_more && !result.exhausted) return 0;
    return std::min(least, least_listed);
  }

  bool has_eigenvectors() const {
    return in_.eigenvalues != nullptr && !samples_.empty() && !in_.eigenvalues->captured.empty() &&
           in_.eigenvalues->captured.size() == samples_.front()->groups.size() &&
           in_.eigenvalues->crossed.size() >= samples_.size();
  }

  /// Parts of each group of the trace between two segments, of each probe.
  std::vector<std::vector<double>> parts(std::size_t first, std::size_t last) const {
    std::vector<std::vector<double>> all;
    for (std::size_t p = 0; p < samples_.size(); ++p) {
      std::vector<double> parts = by_group(samples_[p]->groups, count_, first, last);
      if (has_eigenvectors()) {
        const std::vector<double> captured = by_group(in_.eigenvalues->captured, count_, first, last);
        const std::vector<double> crossed = by_group(in_.eigenvalues->crossed[p], count_, first, last);
        for (std::size_t g = 0; g < count_; ++g) parts[g] += captured[g] - crossed[g];
      }
      all.push_back(std::move(parts));
    }
    return all;
  }

  static std::vector<double> mean_of(const std::vector<std::vector<double>>& all) {
    std::vector<double> mean(all.front().size(), 0.0);
    for (const auto& one : all)
      for (std::size_t g = 0; g < mean.size(); ++g) mean[g] += one[g] / static_cast<double>(all.size());
    return mean;
  }

  /// @param value, run_width  of the figure, and half the run's own interval
  PopulationInterval around(double value, double error, double run_width) const {
    PopulationInterval interval;
    interval.error = error;
    const double width = std::hypot(run_width, quantile_ * error);
    interval.lower = value - width;
    interval.upper = value + width;
    return interval;
  }

  void add_trace(DataError& e) const {
    if (in_.trace == nullptr || samples_.empty()) return;
    constexpr auto kAll = static_cast<std::size_t>(-1);
    const auto of_probes = parts(0, kAll);
    if (has_eigenvectors()) {
      const std::vector<double> mean = mean_of(of_probes);
      e.trace = around(in_.trace->value, ratio_error(mean, in_.groups.share), in_.trace->half_width);
      e.trace_from = "eigenvectors and probes";
      for (std::size_t g = 0; g < count_; ++g) e.trace_of_group.push_back(mean[g] / in_.groups.share[g]);
      return;
    }
    double square = 0, count = 0;
    for (const auto& one : of_probes) {
      const double ratio = sum_of(one) / in_.trace->value;
      if (!(ratio > kLeastProbe)) continue;
      square += std::pow(ratio_error(one, in_.groups.share) / ratio, 2);
      ++count;
    }
    if (count == 0) return;
    e.trace = around(in_.trace->value, std::sqrt(square / count), in_.trace->half_width);
    e.trace_from = "probes";
  }

  /// A layer's part is known well enough only with the eigenvectors taken out.
  void add_layers(DataError& e) const {
    if (in_.layers.empty() || !has_eigenvectors() || in_.trace == nullptr || in_.trace->samples < 2) return;
    if (samples_.front()->groups.size() != in_.layers.size() * count_) return;
    const double run_quantile = sampled_quantile(in_.confidence, in_.trace->samples);
    for (std::size_t l = 0; l < in_.layers.size(); ++l) {
      const Estimate& trace = in_.layers[l].trace;
      e.layers.push_back(around(trace.value, ratio_error(mean_of(parts(l, l + 1)), in_.groups.share),
                                run_quantile * trace.standard_error));
    }
  }

  const DataErrorInputs& in_;
  std::size_t count_;
  double quantile_;
  std::vector<const TraceSample*> samples_;
};

}  // namespace

double ratio_error(std::span<const double> parts, std::span<const double> share) {
  const double sum = sum_of(parts), count = static_cast<double>(parts.size());
  double square = 0;
  for (std::size_t g = 0; g < parts.size(); ++g) square += std::pow(parts[g] - sum * share[g], 2);
  return std::sqrt(count / (count - 1) * square);
}

void add_groups(std::span<const GroupedProduct> products, std::span<const double> share, EigenResult& result) {
  const std::vector<EigenEstimate*> all = listed(result);
  const std::size_t groups = share.size(), count = std::min(products.size(), all.size());
  if (count == 0 || groups < 2) return;
  const std::size_t probes = products.front().overlap.size();
  const std::size_t segments = products.front().dots.size() / groups / (1 + probes);
  result.captured.assign(groups * segments, 0.0);
  result.crossed.assign(probes, std::vector<double>(groups * segments, 0.0));
  for (std::size_t i = 0; i < count; ++i) {
    const GroupedProduct& product = products[i];
    std::vector<std::vector<double>> sums(1 + probes, std::vector<double>(groups, 0.0));  // over segments
    for (std::size_t g = 0; g < groups; ++g)
      for (std::size_t r = 0; r <= probes; ++r)
        for (std::size_t s = 0; s < segments; ++s) {
          const double dot = product.dots[(g * (1 + probes) + r) * segments + s];
          sums[r][g] += dot;
          if (r == 0)
            result.captured[g * segments + s] += dot;
          else
            result.crossed[r - 1][g * segments + s] += product.overlap[r - 1] * dot;
        }
    // E (zᵀP d)² = ‖P d‖² of d = H_g u − f_g H u, P without u itself.
    const double whole = sum_of(sums[0]);
    double square = 0;
    for (std::size_t p = 0; p < probes; ++p) {
      const double with_probe = sum_of(sums[1 + p]);
      for (std::size_t g = 0; g < groups; ++g) {
        const double own = sums[0][g] - share[g] * whole, other = sums[1 + p][g] - share[g] * with_probe;
        square += std::pow(other - product.overlap[p] * own, 2) / static_cast<double>(probes);
      }
    }
    all[i]->groups = sums[0];
    const double spread = static_cast<double>(groups) / static_cast<double>(groups - 1) * square;
    all[i]->data_bias = probes > 0 && all[i]->value != 0 ? spread / all[i]->value : 0.0;
  }
}

PopulationInterval norm_of_population(const NormInputs& in, double& captured) {
  constexpr double kLeastCaptured = 0.9;
  const std::size_t groups = in.share.size();
  const double square = in.value * in.value;
  double found = 0, bias = 0;
  std::vector<double> parts(groups, 0.0);
  for (std::size_t i = 0; i < std::min(in.eigenvalues.size(), in.errors.size()); ++i) {
    const EigenDataError& error = in.errors[i];
    const double value = in.eigenvalues[i];
    if (error.of_group.size() != groups || std::isnan(error.interval.error)) continue;
    found += value * value;
    bias += std::max(0.0, 2 * value * error.bias) + error.interval.error * error.interval.error;
    for (std::size_t g = 0; g < groups; ++g)
      if (in.share[g] > 0) parts[g] += value * error.of_group[g] * in.share[g];  // a group may have no terms
  }
  captured = square > 0 ? std::min(1.0, found / square) : 0;
  PopulationInterval interval;
  if (groups < 2 || captured < kLeastCaptured || !std::isfinite(in.lower) || !std::isfinite(in.upper)) return interval;
  const double error = 2 * ratio_error(parts, in.share) / captured;
  const double half = student_quantile(in.confidence, static_cast<std::int64_t>(groups) - 1) * error;
  const double down = std::hypot(square - in.lower * in.lower, half) + bias + (1 - captured) * square;
  const double up = std::hypot(in.upper * in.upper - square, half);
  interval.error = error / (2 * in.value);
  interval.lower = std::sqrt(std::max(0.0, square - down));
  interval.upper = std::sqrt(square + up);
  return interval;
}

DataError estimate_data_error(const DataErrorInputs& inputs) { return Estimates(inputs).all(); }

}  // namespace hesspect
