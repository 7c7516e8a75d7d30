#include "result_charts.h"

#include <algorithm>
#include <cmath>

#include "chart.h"
#include "hesspect/core/text.h"
#include "tail.h"

namespace hesspect {
namespace {

constexpr int kMostDecadesDown = 9;        // of a density below its largest value
constexpr std::size_t kMostRows = 40;      // of the chart of layers
constexpr int kConstants = 24;             // c at which the effective dimension is drawn
constexpr std::size_t kMostPoints = 4000;  // of a curve: more are no more to be seen

const char* const kLambda = "eigenvalue λ  [loss/parameter²]";

/// Every so many of a curve's points, ends included.
std::vector<std::size_t> drawn_points(std::size_t count) {
  std::vector<std::size_t> points;
  const std::size_t every = count / kMostPoints + 1;
  for (std::size_t i = 0; i < count; i += every) points.push_back(i);
  if (count > 0 && points.back() != count - 1) points.push_back(count - 1);
  return points;
}

void add_stems(Chart& chart, const RunResult& r) {
  if (!r.eigenvalues) return;
  for (const auto* list : {&r.eigenvalues->top, &r.eigenvalues->bottom, &r.eigenvalues->magnitude})
    for (const EigenEstimate& e : *list)
      chart.stem(e.value, e.value < 0 ? "negative" : "top", "eigenvalue " + format_number(e.value));
}

/// Of eigenvalues, from this part of the largest on: zero's neighbourhood.
double zero_threshold(const RunResult& r, double most) { return std::max(noise_floor(r), 1e-7 * most); }

}  // namespace

std::string density_chart(const RunResult& r) {
  if (!r.density || r.density->lambda.size() < 2) return "";
  const Density& d = *r.density;
  const double top = *std::ranges::max_element(d.density);
  if (!(top > 0) || !std::isfinite(top)) return "";
  double floor = top * std::pow(10.0, -kMostDecadesDown);
  // What one single eigenvalue shows at its peak, and a decade more.
  if (r.diagnostics.parameters > 0 && d.sigma > 0)
    floor = std::max(floor, 0.04 / (static_cast<double>(r.diagnostics.parameters) * d.sigma));
  floor = std::min(floor, top / 100);
  Chart chart("Spectral density", Axis::symlog(d.lambda.front(), d.lambda.back(), 2 * d.sigma),
              Axis::log(floor, 3 * top), kLambda, "density  [parameter²/loss]");
  std::vector<double> x, y, least, most, low;
  for (const std::size_t i : drawn_points(d.lambda.size())) {
    x.push_back(d.lambda[i]);
    y.push_back(std::max(d.density[i], floor));
    const double error = i < d.density_errors.size() && std::isfinite(d.density_errors[i]) ? d.density_errors[i] : 0;
    least.push_back(std::max(d.density[i] - error, floor));
    most.push_back(std::max(d.density[i] + error, floor));
    low.push_back(floor);
  }
  chart.area(x, low, y, "body");
  chart.area(x, least, most, "band");
  chart.vertical(0, "zero");
  chart.line(x, y, "curve");
  add_stems(chart, r);
  chart.key("curve", "density");
  if (r.density->density_errors.size() == d.density.size() && *std::ranges::max_element(d.density_errors) > 0)
    chart.key("band", "± standard error over probes");
  if (r.eigenvalues) chart.key("top", "eigenvalues");
  return chart.svg();
}

std::string tail_chart(const RunResult& r) {
  if (!r.cumulative || r.cumulative->lambda.size() < 2 || r.diagnostics.parameters < 1) return "";
  const CumulativeDensity& c = *r.cumulative;
  const double n = static_cast<double>(r.diagnostics.parameters);
  const double reach = std::max(std::abs(c.lambda.front()), std::abs(c.lambda.back()));
  if (!(reach > 0)) return "";
  const double threshold = zero_threshold(r, reach);
  const double low = std::min(c.lambda.front(), -3 * threshold), high = std::max(c.lambda.back(), 3 * threshold);
  const double least = 0.5;  // of eigenvalues: where the axis ends
  Chart chart("Eigenvalues beyond λ", Axis::symlog(1.3 * low, 1.3 * high, threshold), Axis::log(least, 10 * n), kLambda,
              "eigenvalues beyond λ");
  const auto wing = [&](bool positive) {
    std::vector<double> x, y, lower, upper;
    // Right of zero what lies above λ, left of it what lies up to λ.
    const auto count = [&](double share) { return std::max(least, n * (positive ? 1 - share : share)); };
    const auto add = [&](double lambda, const BandedShare& share) {
      x.push_back(lambda);
      y.push_back(count(share.value));
      lower.push_back(std::min(count(share.lower), count(share.upper)));
      upper.push_back(std::max(count(share.lower), count(share.upper)));
    };
    if (positive) add(0, share_up_to(c, 0));
    for (const std::size_t i : drawn_points(c.lambda.size()))
      if ((c.lambda[i] > 0) == positive && (positive || c.lambda[i] < 0)) add(c.lambda[i], share_up_to(c, c.lambda[i]));
    if (x.empty()) return;
    x.push_back(positive ? x.back() : 0);
    for (auto* values : {&y, &lower, &upper}) values->push_back(values->back());
    chart.step_area(x, lower, upper, "band");
    chart.steps(x, y, "curve");
  };
  wing(false);
  wing(true);
  chart.vertical(0, "zero");
  add_stems(chart, r);
  chart.key("curve", "number beyond λ");
  chart.key("band", format_number(100 * c.confidence) + " % band (" + c.band + ")");
  return chart.svg();
}

std::string eigenvalue_chart(const RunResult& r) {
  if (!r.eigenvalues) return "";
  std::vector<EigenEstimate> above, below;
  for (const auto* list : {&r.eigenvalues->top, &r.eigenvalues->bottom, &r.eigenvalues->magnitude})
    for (const EigenEstimate& e : *list)
      if (e.value != 0 && std::isfinite(e.value)) (e.value > 0 ? above : below).push_back(e);
  std::ranges::sort(above, [](const auto& a, const auto& b) { return a.value > b.value; });
  std::ranges::sort(below, [](const auto& a, const auto& b) { return a.value < b.value; });
  const std::size_t most_ranks = std::max(above.size(), below.size());
  if (most_ranks == 0) return "";
  double least = HUGE_VAL, most = 0;
  for (const auto* list : {&above, &below})
    for (const EigenEstimate& e : *list) {
      least = std::min(least, std::abs(e.value));
      most = std::max(most, std::abs(e.value));
    }
  Chart chart("Computed eigenvalues", Axis::log(0.9, 1.15 * static_cast<double>(most_ranks)),
              Axis::log(least / 2, 2 * most), "rank, the largest in magnitude first", "|λ|  [loss/parameter²]");
  const auto draw = [&](const std::vector<EigenEstimate>& list, const std::string& css, const std::string& name) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      const EigenEstimate& e = list[i];
      const double size = std::abs(e.value), error = std::abs(e.error);
      chart.mark(static_cast<double>(i + 1), size, std::max(size - error, least / 2), size + error, css,
                 format_number(e.value) + " ± " + format_number(error) + (e.converged ? "" : ", not converged"));
    }
    if (!list.empty()) chart.key(css, name);
  };
  draw(above, "top", "above zero");
  draw(below, "negative", "below zero");
  return chart.svg();
}

std::string layer_chart(const RunResult& r) {
  const std::vector<Figure> layers = layer_figures(r);
  if (layers.empty()) return "";
  std::vector<double> sizes;
  for (const Figure& layer : layers) sizes.push_back(std::abs(layer.value));
  std::ranges::sort(sizes, std::greater<>());
  const double least_shown = sizes[std::min(sizes.size(), kMostRows) - 1];
  std::vector<NamedValue> rows;
  double low = 0, high = 0;
  for (const Figure& layer : layers) {
    if (std::abs(layer.value) < least_shown || rows.size() == kMostRows || !std::isfinite(layer.value)) continue;
    rows.push_back({layer.of, layer.value, layer.lower, layer.upper});
    low = std::min({low, layer.value, std::isfinite(layer.lower) ? layer.lower : 0});
    high = std::max({high, layer.value, std::isfinite(layer.upper) ? layer.upper : 0});
  }
  const double reach = std::max(-low, high);
  if (rows.empty() || !(reach > 0)) return "";
  const double threshold = std::max(1e-4 * reach, least_shown > 0 ? least_shown / 2 : 0);
  return row_chart("Traces of parameter tensors", rows, Axis::symlog(1.2 * low, 1.2 * high, threshold),
                   "trace of the tensor's diagonal block  [loss/parameter²]");
}

std::string block_chart(const RunResult& r) {
  if (!r.blocks || !std::isfinite(r.blocks->js_mean)) return "";
  std::vector<std::string> names;
  for (const BlockResult& block : r.blocks->each) names.push_back(block.name);
  std::vector<double> values;
  for (const auto& row : r.blocks->js_distance) values.insert(values.end(), row.begin(), row.end());
  if (names.size() < 2 || values.size() != names.size() * names.size()) return "";
  return heat_chart("Distances between blocks' densities", names, names, values);
}

std::string dimension_chart(const RunResult& r) {
  if (r.quadrature.empty() || !r.cumulative || r.diagnostics.parameters < 1) return "";
  const double top = r.cumulative->range_hi;
  if (!(top > 0) || !std::isfinite(top)) return "";
  std::vector<double> c, value, low, high;
  double least = HUGE_VAL;
  for (int i = 0; i < kConstants; ++i) {
    c.push_back(top * std::pow(10.0, 1 - 7.0 * i / (kConstants - 1)));
    const Figure figure = effective_dimension(r, c.back());
    value.push_back(figure.value);
    low.push_back(figure.lower);
    high.push_back(figure.upper);
    least = std::min(least, figure.value);
  }
  if (!(least > 0)) return "";
  const double n = static_cast<double>(r.diagnostics.parameters);
  std::ranges::reverse(c);
  for (auto* values : {&value, &low, &high}) std::ranges::reverse(*values);
  Chart chart("Effective dimension", Axis::log(c.front(), c.back()),
              Axis::log(least / 2, std::min(1.3 * n, 2 * *std::ranges::max_element(high))),
              "constant c  [loss/parameter²]", "Σ λ/(λ+c)");
  chart.area(c, low, high, "band");
  chart.line(c, value, "curve");
  chart.key("curve", "effective dimension");
  chart.key("band", "sampling and quadrature");
  return chart.svg();
}

}  // namespace hesspect
