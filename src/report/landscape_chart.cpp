#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "chart.h"
#include "figure_text.h"
#include "hesspect/core/text.h"
#include "result_charts.h"

namespace hesspect {
namespace {

struct Range {
  double low = HUGE_VAL, high = -HUGE_VAL;
  void take(double x) {
    if (!std::isfinite(x)) return;
    low = std::min(low, x);
    high = std::max(high, x);
  }
};

Range losses_of(const Landscape& l) {
  Range range;
  for (const auto& row : l.loss)
    for (const double loss : row) range.take(loss);
  return range;
}

/// Of what lies between two neighbouring coordinates, half belongs to each.
double edge(const std::vector<double>& at, std::size_t i) {
  if (i == 0) return at.front();
  if (i == at.size()) return at.back();
  return (at[i - 1] + at[i]) / 2;
}

std::string line_of(const Landscape& l) {
  const Range range = losses_of(l);
  const LandscapeDirection& d = l.directions.front();
  const double span = range.high > range.low ? range.high - range.low : std::max(1e-12, std::abs(range.high));
  const double foot = range.low - 0.12 * span, top = range.high + 0.3 * span;
  Chart chart("The loss along " + d.name, Axis::linear(l.alpha.front(), l.alpha.back()), Axis::linear(foot, top),
              "along " + d.name, "mean loss");
  std::vector<double> loss, model;
  for (const auto& row : l.loss) loss.push_back(row.front());
  for (const auto& row : l.quadratic)  // what leaves the picture breaks the line
    model.push_back(row.front() >= foot && row.front() <= top ? row.front() : std::nan(""));
  const double left = std::max(-d.valid_below, l.alpha.front()), right = std::min(d.valid_above, l.alpha.back());
  if (right > left) {
    chart.area({left, right}, {foot, foot}, {top, top}, "valid");
    chart.key("valid", "model within " + format_number(100 * l.tolerance) + " % of its change");
  }
  chart.vertical(0, "zero");
  chart.line(l.alpha, model, "other");
  chart.line(l.alpha, loss, "curve");
  chart.key("curve", "loss");
  chart.key("other", "quadratic model");
  return chart.svg();
}

std::string surface_of(const Landscape& l) {
  const Range range = losses_of(l);
  if (!(range.high > range.low)) return "";
  const bool logarithmic = range.low > 0 && range.high / range.low > 30;
  const auto scaled = [&](double x) { return logarithmic ? std::log(x) : x; };
  Chart chart("The loss over two directions", Axis::linear(l.alpha.front(), l.alpha.back()),
              Axis::linear(l.beta.front(), l.beta.back()), "along " + l.directions.front().name,
              "along " + l.directions.back().name);
  for (std::size_t i = 0; i < l.alpha.size(); ++i)
    for (std::size_t j = 0; j < l.beta.size(); ++j) {
      const double loss = l.loss[i][j];
      chart.cell(edge(l.alpha, i), edge(l.alpha, i + 1), edge(l.beta, j), edge(l.beta, j + 1),
                 (scaled(loss) - scaled(range.low)) / (scaled(range.high) - scaled(range.low)),
                 "loss " + format_number(loss) + ", quadratic model " + format_number(l.quadratic[i][j]));
    }
  chart.mark(0, 0, std::nan(""), std::nan(""), "top", "the parameters: loss " + format_number(l.loss_at_start));
  return chart.svg();
}

bool is_drawable(const Landscape& l) {
  if (l.directions.empty() || l.alpha.size() < 2) return false;
  const auto fits = [&](const std::vector<std::vector<double>>& table) {
    return table.size() == l.alpha.size() &&
           std::ranges::all_of(table, [&](const auto& row) { return !row.empty() && row.size() == l.beta.size(); });
  };
  return fits(l.loss) && fits(l.quadratic) && std::isfinite(losses_of(l).low);
}

bool has_two_directions(const Landscape& l) { return l.directions.size() > 1 && l.beta.size() > 1; }

nlohmann::ordered_json numbers_json(const std::vector<std::vector<double>>& table) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& row : table) {
    rows.push_back(nlohmann::ordered_json::array());
    for (const double x : row) rows.back().push_back(number_json(x));
  }
  return rows;
}

}  // namespace

std::string landscape_chart(const RunResult& r) {
  if (!r.landscape || !is_drawable(*r.landscape)) return "";
  return has_two_directions(*r.landscape) ? surface_of(*r.landscape) : line_of(*r.landscape);
}

std::string landscape_surface(const RunResult& r) {
  if (!r.landscape || !is_drawable(*r.landscape) || !has_two_directions(*r.landscape)) return "";
  const Landscape& l = *r.landscape;
  const Range range = losses_of(l);
  if (!(range.high > range.low)) return "";
  const nlohmann::ordered_json data{
      {"alpha", l.alpha},
      {"beta", l.beta},
      {"loss", numbers_json(l.loss)},
      {"quadratic", numbers_json(l.quadratic)},
      {"start", number_json(l.loss_at_start)},
      {"names", {one_line(l.directions.front().name), one_line(l.directions.back().name)}}};
  std::string text = data.dump();
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos;) text.replace(at, 1, "\\u003c");
  const bool spans_decades = range.low > 0 && range.high / range.low > 30;
  const auto choice = [](const char* name, bool is_on, bool can_be = true) {
    return std::string("<label><input type=\"checkbox\"") + (is_on ? " checked" : "") + (can_be ? "" : " disabled") +
           "> " + name + "</label> ";
  };
  return "<canvas tabindex=\"0\" role=\"img\" aria-label=\"The loss over two directions as a "
         "surface; arrow keys turn it\"></canvas><p>" +
         choice("loss", true) + choice("quadratic model", true) + choice("logarithmic", spans_decades, range.low > 0) +
         "<output class=\"soft\"></output></p><script type=\"application/json\">" + text + "</script>";
}

}  // namespace hesspect
