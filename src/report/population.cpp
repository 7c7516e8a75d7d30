#include "population.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "figure_text.h"
#include "hesspect/core/text.h"
#include "hesspect/spectrum/data_error.h"

namespace hesspect {
namespace {

std::string two_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", value);
  return text;
}

/// Of a listed eigenvalue, told by its value; nullptr where there is none.
const EigenDataError* error_of_value(const RunResult& r, double value) {
  if (!r.eigenvalues || !r.data_error) return nullptr;
  std::size_t i = 0;
  for (const auto* list : {&r.eigenvalues->top, &r.eigenvalues->bottom, &r.eigenvalues->magnitude})
    for (const EigenEstimate& one : *list) {
      if (i == r.data_error->eigenvalues.size()) return nullptr;
      if (one.value == value) return &r.data_error->eigenvalues[i];
      ++i;
    }
  return nullptr;
}

void set_rows(Figure& figure, const PopulationInterval& interval, double factor = 1) {
  figure.data_error = factor * interval.error;
  figure.population_lower = factor * interval.lower;
  figure.population_upper = factor * interval.upper;
}

bool is_step(const std::string& key) { return key == "step_gd" || key == "step_momentum" || key == "step_nesterov"; }

/// A step is c / λ₁.
void set_rows_of_step(Figure& figure, double largest, const PopulationInterval& interval) {
  const double c = figure.value * largest;
  figure.data_error = figure.value * interval.error / largest;
  if (!(interval.lower > 0)) return;
  figure.population_lower = c / interval.upper;
  figure.population_upper = c / interval.lower;
}

/// ‖H‖_F by the listed eigenvalues, where they make most of it; else the note says why not.
void set_rows_of_norm(const RunResult& r, Figure& figure) {
  std::vector<double> values;
  if (r.eigenvalues)
    for (const auto* list : {&r.eigenvalues->top, &r.eigenvalues->bottom, &r.eigenvalues->magnitude})
      for (const EigenEstimate& one : *list) values.push_back(one.value);
  double captured = 0;
  const PopulationInterval interval =
      norm_of_population({figure.value, figure.lower, figure.upper, r.data_error->confidence, values,
                          r.data_error->eigenvalues, r.data_error->groups.share},
                         captured);
  set_rows(figure, interval);
  if (interval.known()) return;
  const std::string why = captured < 0.9
                              ? "the eigenvalues that were listed make " + two_digits(captured) + " of its square"
                              : "its own interval is not known";
  figure.note += (figure.note.empty() ? "" : "; ") + ("over rows: not told, " + why);
}

const Figure* known_figure(const std::vector<Figure>& figures, const std::string& key) {
  const auto found = std::ranges::find(figures, key, &Figure::key);
  return found != figures.end() && found->known() ? &*found : nullptr;
}

}  // namespace

void add_population(const RunResult& r, std::vector<Figure>& figures) {
  if (!r.data_error) return;
  const Figure* const largest = known_figure(figures, "lambda_1");
  const double lambda = largest != nullptr ? largest->value : 0;
  const EigenDataError* const of_largest = largest != nullptr ? error_of_value(r, lambda) : nullptr;
  const double n = static_cast<double>(r.diagnostics.parameters);
  for (Figure& figure : figures) {
    if (!figure.known()) continue;
    if (figure.key == "lambda_1" || figure.key == "lambda_min") {
      if (const EigenDataError* error = error_of_value(r, figure.value)) set_rows(figure, error->interval);
    } else if (is_step(figure.key)) {
      if (of_largest != nullptr) set_rows_of_step(figure, lambda, of_largest->interval);
    } else if (figure.key == "frobenius") {
      set_rows_of_norm(r, figure);
    } else if (figure.key == "trace") {
      set_rows(figure, r.data_error->trace);
    } else if (figure.key == "mean_eigenvalue" && n > 0) {
      set_rows(figure, r.data_error->trace, 1 / n);
    }
  }
}

void add_layer_population(const RunResult& r, std::vector<Figure>& layers) {
  if (!r.data_error || r.data_error->layers.size() != layers.size()) return;
  for (std::size_t l = 0; l < layers.size(); ++l) set_rows(layers[l], r.data_error->layers[l]);
}

std::string population_text(const Figure& figure) {
  if (!std::isfinite(figure.data_error)) return "";
  const std::string text = "over rows ± " + two_digits(figure.data_error) + " (standard error), ";
  if (!figure.has_population()) return text + "no interval: eigenvalues beside it change places with it";
  Figure whole = of_population(figure);
  return text + "population [" + rounded_text(whole.lower, whole) + ", " + rounded_text(whole.upper, whole) + "]";
}

std::string data_error_sentence(const NamedResult& named) {
  if (!named.result.data_error) return "";
  const DataError& e = *named.result.data_error;
  std::string text = quote(named.name) + ": by the spread over " + format_count(e.groups.count()) +
                     " groups of rows, in the file's order, standard errors are ";
  std::string list;
  const auto add = [&](const std::string& what, double error) {
    if (std::isfinite(error)) list += (list.empty() ? "" : ", ") + two_digits(error) + " of the " + what;
  };
  add("loss", e.loss.error);
  add("trace", e.trace.error);
  if (!e.eigenvalues.empty()) {
    add("first eigenvalue", e.eigenvalues.front().interval.error);
    if (const double bias = e.eigenvalues.front().bias; std::isfinite(bias) && bias > 0)
      list += " (which fitting to these rows makes too large by about " + two_digits(bias) + ")";
  }
  return text + list + ". Intervals for the population that the rows were drawn from hold both errors at " +
         format_number(100 * e.confidence) +
         " %. They take groups as independent: rows of one document or user that are neighbours in the file are so "
         "only within their group, and rows that are sorted make them too wide." +
         (e.trace_from == "probes" ? " The trace's is from two probes alone and rather too large." : "") +
         " Of the density, what is drawn from it (effective dimension, negative mass, outliers, bulk) and diagonal "
         "blocks "
         "it is not measured: that would take products by group of rows with each of their vectors.";
}

Figure of_population(Figure figure) {
  figure.lower = figure.population_lower;
  figure.upper = figure.population_upper;
  figure.interval = "population";
  figure.falling = {};
  return figure;
}

}  // namespace hesspect
