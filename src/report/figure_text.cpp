#include "figure_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "hesspect/core/text.h"

namespace hesspect {

std::string rounded_text(double value, const Figure& figure) {
  const double width = std::max(figure.upper - figure.value, figure.value - figure.lower);
  return figure.has_interval() ? rounded_to(value, width, std::max(std::abs(figure.value), width))
                               : format_number(value);
}

std::string value_text(const Figure& figure) {
  if (!figure.known()) return "not known: " + figure.missing;
  std::string text = rounded_text(figure.value, figure);
  if (figure.has_interval())
    text += " [" + rounded_text(figure.lower, figure) + ", " + rounded_text(figure.upper, figure) + "]";
  return text;
}

nlohmann::ordered_json number_json(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

nlohmann::ordered_json figure_json(const Figure& figure) {
  nlohmann::ordered_json json;
  json["key"] = figure.key;
  if (!figure.of.empty()) json["of"] = one_line(figure.of);
  json["value"] = number_json(figure.value);
  json["lower"] = number_json(figure.lower);
  json["upper"] = number_json(figure.upper);
  if (!figure.interval.empty()) json["interval"] = figure.interval;
  if (std::isfinite(figure.data_error)) {
    json["data_error"] = number_json(figure.data_error);
    json["population_lower"] = number_json(figure.population_lower);
    json["population_upper"] = number_json(figure.population_upper);
  }
  if (!figure.note.empty()) json["note"] = figure.note;
  if (!figure.missing.empty()) json["missing"] = figure.missing;
  return json;
}

nlohmann::ordered_json definitions_json() {
  nlohmann::ordered_json json;
  for (const Definition& d : definitions())
    json[d.key] = {{"name", d.name},     {"symbol", d.symbol},  {"unit", d.unit}, {"definition", d.definition},
                   {"source", d.source}, {"against", d.against}};
  return json;
}

std::string subject_text(const RunResult& r) {
  const ProcessInfo& p = r.process;
  std::string text = p.curvature + (r.inputs ? " in the inputs" : "") + " of the " +
                     (p.reduction == "sum" ? "summed " : "mean ") + "loss " + p.loss_kind;
  text += ", " + format_count(r.diagnostics.parameters) + " parameters, " + format_count(r.diagnostics.rows) + " rows";
  return one_line(text);
}

}  // namespace hesspect
