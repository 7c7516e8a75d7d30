#include "measured_figures.h"

#include <algorithm>
#include <cmath>

#include "hesspect/core/text.h"

namespace hesspect {
namespace {

Figure measured(const std::string& key, const std::string& of, double value, const std::string& note) {
  Figure figure;
  figure.key = key;
  figure.of = of;
  figure.value = value;
  figure.note = note;
  return figure;
}

Figure rise_of(const Ascent& a) {
  std::string note = format_number(a.gradient) + " along the gradient";
  if (std::isfinite(a.eigenvector)) note += ", " + format_number(a.eigenvector) + " along eigenvectors";
  note += "; the gradient alone says " + format_number(a.first_order);
  return measured(a.adaptive ? "adaptive_rise" : "sam_rise", "ρ = " + format_number(a.rho), a.worst(), note);
}

std::string check_note(const StepCheck& c) {
  return std::string(c.confirmed() ? "confirmed" : "not confirmed") + ": growth a step " + format_number(c.below) +
         " below, " + format_number(c.above) + " above (a quadratic loss: " + format_number(c.expected_below) + ", " +
         format_number(c.expected_above) + ")";
}

Figure check_of(const StepCheck& c) { return measured("step_checked", c.optimizer, c.largest_step, check_note(c)); }

void add_adam(std::vector<Figure>& figures, const AdamSharpness& a) {
  std::string note =
      "ε " + format_number(a.eps_least) + (a.eps_most > a.eps_least ? " to " + format_number(a.eps_most) : "") + ", ";
  if (a.step_most > 0) {
    note += "after " + format_number(a.step_fewest) +
            (a.step_most > a.step_fewest ? " to " + format_number(a.step_most) : "") + " steps, β₂ " +
            format_number(a.beta2);
  } else {
    note += "moments as they are in the file";
  }
  if (a.largest) note += ", amsgrad's";
  if (!a.converged) note += "; not converged";
  const bool has_error = std::isfinite(a.lambda_1_error);
  const double low = a.lambda_1 - a.lambda_1_error, high = a.lambda_1 + a.lambda_1_error;
  Figure largest = measured("adam_lambda_1", "", a.lambda_1, note);
  if (has_error) {
    largest.lower = low;
    largest.upper = high;
    largest.interval = "Lanczos error bound";
  }
  figures.push_back(largest);
  Figure rate = measured("adam_rate", "β₁ = " + format_number(a.beta1), a.largest_rate, "not checked by steps");
  if (!(a.lambda_1 > 0)) {
    rate.missing = "no eigenvalue is above zero: no rate is too large";
    rate.value = Figure::kUnknown;
  } else if (has_error) {
    rate.lower = a.largest_rate * a.lambda_1 / high;
    rate.upper = low > 0 ? a.largest_rate * a.lambda_1 / low : Figure::kUnknown;
    rate.interval = "from that of the eigenvalue";
  }
  for (const StepCheck& check : a.steps) rate.note = check_note(check);
  figures.push_back(rate);
}

void add_sharpness(std::vector<Figure>& figures, const Sharpness& s) {
  for (const Ascent& ascent : s.ascents) figures.push_back(rise_of(ascent));
  for (const StepCheck& check : s.steps) figures.push_back(check_of(check));
  if (s.adam) add_adam(figures, *s.adam);
  if (std::isfinite(s.critical.sharpness))
    figures.push_back(measured(
        "critical_sharpness", "", s.critical.sharpness,
        "step " + format_number(s.critical.step) + "; a quadratic loss: " + format_number(s.critical.directional)));
  if (s.basin.radius.empty()) return;
  std::vector<double> radius = s.basin.radius;
  std::ranges::sort(radius);
  const auto told = [](double r) { return std::isfinite(r) ? format_number(r) : std::string("beyond 10"); };
  Figure basin =
      measured("basin_radius", "", radius[radius.size() / 2],
               "from " + told(radius.front()) + " to " + told(radius.back()) + " in " + std::to_string(radius.size()) +
                   " directions, to a rise of " + format_number(s.basin.tolerance));
  if (!std::isfinite(basin.value)) basin.missing = "the loss stays within the tolerance as far as was looked";
  figures.push_back(basin);
}

Figure quantile_figure(const std::string& key, double share, const Quantile& q, double confidence) {
  Figure figure = measured(key, "quantile " + format_number(share), q.value, "");
  if (std::isfinite(q.lower) && std::isfinite(q.upper)) {
    figure.lower = q.lower;
    figure.upper = q.upper;
    figure.interval = format_number(100 * confidence) + " %, order statistics of the rows: the data's error is in it";
  }
  return figure;
}

void add_correlations(std::vector<Figure>& figures, const FeaturesResult& features) {
  for (const FeatureCorrelation& c : features.correlations) {
    Figure figure = measured("feature_correlation", c.what, c.found.value, "");
    figure.missing = c.missing;
    if (c.missing.empty()) {
      figure.lower = c.found.lower;
      figure.upper = c.found.upper;
      figure.interval =
          format_number(100 * features.confidence) + " %, Fisher's z over " + format_count(c.found.count) + " features";
    }
    figures.push_back(figure);
  }
}

}  // namespace

std::vector<Figure> measured_figures(const RunResult& r) {
  std::vector<Figure> figures;
  if (r.sharpness) add_sharpness(figures, *r.sharpness);
  if (r.features) add_correlations(figures, *r.features);
  if (!r.inputs) return figures;
  for (const InputQuantiles& q : r.inputs->quantiles)
    figures.push_back(quantile_figure("input_curvature", q.share, q.magnitude, r.inputs->confidence));
  for (const InputQuantiles& q : r.inputs->quantiles)
    figures.push_back(quantile_figure("input_change", q.share, q.change, r.inputs->confidence));
  return figures;
}

}  // namespace hesspect
