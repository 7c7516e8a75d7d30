#include "figure_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "hesspect/core/text.h"

namespace hesspect {

std::size_t characters(const std::string& text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // all but UTF-8's later bytes
  return count;
}

std::string padded(const std::string& text, std::size_t width) {
  const std::size_t length = characters(text);
  return length < width ? text + std::string(width - length, ' ') : text;
}

std::string rounded_text(double value, const Figure& figure) {
  const double width = std::max(figure.upper - figure.value, figure.value - figure.lower);
  const double scale = std::max(std::abs(figure.value), width);
  if (!figure.has_interval() || !std::isfinite(width) || !std::isfinite(value) || !(width > 1e-12 * scale))
    return format_number(value);
  const double unit = std::pow(10.0, std::floor(std::log10(width)) - 1);
  const double rounded = std::round(value / unit) * unit;
  const double digits = rounded == 0 ? 1 : std::floor(std::log10(std::abs(rounded)) - std::log10(unit) + 1e-9) + 1;
  char text[40];
  std::snprintf(text, sizeof text, "%.*g", static_cast<int>(std::max(1.0, digits)), rounded);
  double whole = 0;  // 1.1e+02 is 110
  if (std::abs(rounded) < 1e6 && std::abs(rounded) >= 1 && std::string_view(text).find('e') != std::string_view::npos &&
      std::modf(rounded, &whole) < 1e-9)
    return std::to_string(static_cast<std::int64_t>(std::llround(rounded)));
  return text;
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
