#include "measured_figures.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

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

/// @param falls  how its half width falls
Figure interval_figure(const std::string& key, const std::string& of, const Interval& i, const std::string& interval,
                       const std::string& note, const Falling& falls) {
  Figure figure = measured(key, of, i.value, note);
  if (!std::isfinite(i.value)) {
    figure.missing = "not known";
  } else if (std::isfinite(i.lower) && std::isfinite(i.upper)) {
    figure.lower = i.lower;
    figure.upper = i.upper;
    figure.interval = interval;
  }
  figure.falling = falls;
  return figure;
}

std::string over(double confidence, const std::string& what) { return format_number(100 * confidence) + " %, " + what; }

void add_information(std::vector<Figure>& figures, const Information& i) {
  const auto missing = [&](const char* key) {
    Figure figure = measured(key, "", Figure::kUnknown, "");
    figure.missing = i.obstacle;
    figures.push_back(figure);
  };
  if (!i.obstacle.empty()) return missing("fisher_rao"), missing("tic");
  figures.push_back(measured("fisher_rao", "the model's targets", i.fisher_rao, "exact on these rows"));
  figures.push_back(measured("fisher_rao", "the data's targets", i.empirical_fisher_rao, "exact on these rows"));
  const Falling falls{static_cast<double>(i.samples), 0.5, 0};
  const std::string vectors = over(i.confidence, "over " + std::to_string(i.samples) + " random vectors");
  figures.push_back(interval_figure("fisher_trace", "", i.fisher_trace, vectors, "", falls));
  figures.push_back(interval_figure("empirical_fisher_trace", "", i.empirical_trace, vectors, "", falls));
  figures.push_back(interval_figure("tic", "of Fisher", i.empirical_over_fisher, vectors, "", falls));
  Figure hessian = interval_figure("tic", "of the run's matrix", i.empirical_over_hessian, vectors,
                                   "tr C / tr H, H of trace " + format_number(i.trace.value), falls);
  if (!hessian.known()) hessian.missing = "the trace of the run's matrix is not known to be above zero";
  figures.push_back(hessian);
}

void add_flatness(std::vector<Figure>& figures, const RelativeFlatness& f) {
  Figure figure = interval_figure("relative_flatness", f.layer, f.value,
                                  over(f.confidence, "over " + std::to_string(f.samples) + " random matrices"),
                                  std::to_string(f.rows) + " rows of " + std::to_string(f.columns) + " weights",
                                  {static_cast<double>(f.samples), 0.5, 0});
  if (!f.obstacle.empty()) figure.missing = f.obstacle;
  figures.push_back(figure);
}

void add_quality(std::vector<Figure>& figures, const DataComparison& c) {
  const std::string rows = over(c.confidence, "over rows: the data's error is in it");
  figures.push_back(interval_figure("loss_gap", "", c.gap, rows, "", {}));
  const std::pair<const DataQuality*, std::string> both[] = {{&c.own, "own data"}, {&c.other, "other data"}};
  const auto add = [&](const char* key, Interval DataQuality::*of, const std::string& interval) {
    for (const auto& [quality, name] : both) {
      std::string note = format_count(quality->rows) + " rows";
      if (std::string_view(key) == "ece" && std::isfinite(quality->calibrated_ece))
        note += "; a calibrated model of these confidences shows " + format_number(quality->calibrated_ece) +
                " in the mean";
      Figure figure = interval_figure(key, name, quality->*of, interval, note, {});
      if (!figure.known() && !c.obstacle.empty()) figure.missing = c.obstacle;
      figures.push_back(figure);
    }
  };
  add("data_loss", &DataQuality::loss, rows);
  add("accuracy", &DataQuality::accuracy, rows);
  add("nll", &DataQuality::nll, rows);
  add("ece", &DataQuality::ece, over(c.confidence, "bootstrap over rows, all bins together"));
  add("brier", &DataQuality::brier, rows);
}

void add_sharpness(std::vector<Figure>& figures, const Sharpness& s) {
  for (const Ascent& ascent : s.ascents) figures.push_back(rise_of(ascent));
  for (const StepCheck& check : s.steps) figures.push_back(check_of(check));
  if (s.adam) add_adam(figures, *s.adam);
  if (std::isfinite(s.critical.sharpness))
    figures.push_back(measured(
        "critical_sharpness", "", s.critical.sharpness,
        "step " + format_number(s.critical.step) + "; a quadratic loss: " + format_number(s.critical.directional)));
  if (s.information) add_information(figures, *s.information);
  if (s.flatness) add_flatness(figures, *s.flatness);
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

/// λ₁ with its bound, and the step that it allows. @param step  NaN: none, for the eigenvalue is not above zero
void add_checked(std::vector<Figure>& figures, const std::string& of, const std::string& eigenvalue_key,
                 const std::string& step_key, double value, double error, double step, double below, double above) {
  if (std::isnan(value)) return;
  Figure largest = measured(eigenvalue_key, of, value, "");
  const bool has_error = std::isfinite(error);
  if (has_error) {
    largest.lower = value - error;
    largest.upper = value + error;
    largest.interval = "Lanczos error bound";
  }
  figures.push_back(largest);
  Figure rate = measured(step_key, of, step, "not checked by steps");
  if (std::isnan(step)) {
    rate.missing = "the block's largest eigenvalue is not known to be above zero: no step is too large";
    rate.note = "";
  } else {
    if (has_error) {
      rate.lower = step * value / (value + error);
      rate.upper = value > error ? step * value / (value - error) : Figure::kUnknown;
      rate.interval = "from that of the eigenvalue";
    }
    if (std::isfinite(below) || std::isfinite(above))
      rate.note = std::string(below < 1 && above > 1 ? "confirmed" : "not confirmed") + ": growth a step " +
                  format_number(below) + " below, " + format_number(above) + " above";
  }
  figures.push_back(rate);
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

std::vector<std::vector<Figure>> block_step_figures(const RunResult& r) {
  std::vector<std::vector<Figure>> all;
  if (!r.sharpness || !r.sharpness->blocks) return all;
  for (const BlockSteps& b : r.sharpness->blocks->each) {
    std::vector<Figure>& figures = all.emplace_back();
    add_checked(figures, b.name, "lambda_1", "step_checked", b.lambda_1, b.lambda_1_error, b.step, b.growth_below,
                b.growth_above);
    add_checked(figures, b.name, "adam_lambda_1", "adam_rate", b.adam_lambda_1, b.adam_lambda_1_error, b.adam_rate,
                b.adam_growth_below, b.adam_growth_above);
  }
  return all;
}

std::vector<Figure> measured_figures(const RunResult& r) {
  std::vector<Figure> figures;
  if (r.sharpness) add_sharpness(figures, *r.sharpness);
  if (r.quality) add_quality(figures, *r.quality);
  if (r.features) add_correlations(figures, *r.features);
  if (!r.inputs) return figures;
  for (const InputQuantiles& q : r.inputs->quantiles)
    figures.push_back(quantile_figure("input_curvature", q.share, q.magnitude, r.inputs->confidence));
  for (const InputQuantiles& q : r.inputs->quantiles)
    figures.push_back(quantile_figure("input_change", q.share, q.change, r.inputs->confidence));
  return figures;
}

}  // namespace hesspect
