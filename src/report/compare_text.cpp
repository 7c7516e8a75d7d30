// A comparison as text and as JSON.
#include <algorithm>
#include <cmath>

#include "figure_text.h"
#include "hesspect/core/text.h"
#include "hesspect/report/compare.h"

namespace hesspect {
namespace {

constexpr std::size_t kNameWidth = 42;
constexpr std::size_t kMostLayersTold = 30;

std::string row_name(const Figure& figure) {
  if (figure.key == "layer_trace") return one_line(figure.of);
  const Definition& d = definition_of(figure.key);
  return d.name + (figure.of.empty() ? "" : ", " + figure.of);
}

std::string letter(std::size_t i) {
  return i < 26 ? std::string(1, static_cast<char>('A' + i)) : std::to_string(i + 1);
}

void add_row(std::string& text, const ComparedFigure& row) {
  text += "\n" + row_name(row.figures.front()) + "\n";
  for (std::size_t i = 0; i < row.figures.size(); ++i) {
    const Figure& figure = row.figures[i];
    std::string line = "  " + letter(i) + "  " + (figure.key.empty() ? "not known" : value_text(figure));
    if (i > 0) {
      const std::string verdict = verdict_text(row.verdicts[i]);
      const bool known = figure.known() && row.figures.front().known() && !figure.key.empty();
      const std::string told = !verdict.empty() ? verdict : known ? "no interval: no verdict" : "";
      if (!told.empty()) line = padded(line, kNameWidth) + "  " + told;
    }
    text += line + "\n";
  }
}

std::string interval_text(double value, double lower, double upper) {
  return format_number(value) + " [" + format_number(lower) + ", " + format_number(upper) + "]";
}

void add_densities(std::string& text, const Comparison& c) {
  if (c.densities.empty()) return;
  text += "\nWasserstein-1 distance of the spectrum to A's, in units of λ\n";
  for (std::size_t i = 1; i < c.densities.size(); ++i) {
    const DensityDistance& d = c.densities[i];
    const bool differs = d.verdict.kind == Verdict::Kind::kHigher;
    text += padded("  " + letter(i) + "  " + interval_text(d.value, d.lower, d.upper), kNameWidth) + "  " +
            (differs ? "they differ" : verdict_text(d.verdict)) + "\n";
    if (std::isfinite(d.shape))
      text += "     " + interval_text(d.shape, d.shape_lower, d.shape_upper) +
              " after each is divided by its range's upper end\n";
  }
}

void add_compared_layers(std::string& text, const Comparison& c) {
  if (c.layers.empty()) return;
  text +=
      "\nTraces of the parameter tensors, each at its own confidence: about one in fifty that are alike would still be "
      "told apart at 90 %\n";
  std::size_t told = 0;
  for (const ComparedFigure& row : c.layers) {
    if (told++ == kMostLayersTold) {
      text += "\n... and " + format_count(static_cast<std::int64_t>(c.layers.size() - kMostLayersTold)) +
              " more: --format json has all\n";
      break;
    }
    add_row(text, row);
  }
}

nlohmann::ordered_json verdict_json(const Verdict& verdict) {
  static const char* const kinds[] = {"none", "equal", "lower", "higher", "undecided"};
  static const char* const bases[] = {"same rows", "populations", "these rows alone"};
  nlohmann::ordered_json json{{"verdict", kinds[static_cast<std::size_t>(verdict.kind)]}};
  if (verdict.kind != Verdict::Kind::kNone) json["basis"] = bases[static_cast<std::size_t>(verdict.basis)];
  if (verdict.kind == Verdict::Kind::kUndecided) json["more_products"] = number_json(verdict.products);
  return json;
}

nlohmann::ordered_json rows_json(const std::vector<ComparedFigure>& rows) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const ComparedFigure& row : rows) {
    nlohmann::ordered_json figures = nlohmann::ordered_json::array(), verdicts = nlohmann::ordered_json::array();
    for (const Figure& figure : row.figures) figures.push_back(figure_json(figure));
    for (const Verdict& verdict : row.verdicts) verdicts.push_back(verdict_json(verdict));
    json.push_back({{"key", row.figures.front().key}, {"figures", figures}, {"verdicts", verdicts}});
  }
  return json;
}

}  // namespace

std::string comparison_text(const Comparison& c) {
  std::string text = "comparison with " + one_line(c.names.front()) + " (A)\n";
  for (std::size_t i = 1; i < c.names.size(); ++i) text += "  " + letter(i) + " is " + one_line(c.names[i]) + "\n";
  for (const std::string& warning : c.warnings) text += "  warning: " + warning + "\n";
  text +=
      "\nIn brackets: what each number is known to on its data. 'lower' and 'higher' are against A, and stand only "
      "where\nintervals do not overlap: these, where both had the same rows, and else those for the populations that "
      "the\nrows were drawn from, where both results have them. They are no grades. " +
      why_no_grade() + ".\n";
  for (const ComparedFigure& row : c.figures) add_row(text, row);
  add_densities(text, c);
  if (!c.blocks.empty()) text += "\nDiagonal blocks\n";
  for (const ComparedFigure& row : c.blocks) add_row(text, row);
  add_compared_layers(text, c);
  return text;
}

std::string comparison_json(const Comparison& c) {
  nlohmann::ordered_json json;
  json["results"] = c.names;
  json["warnings"] = c.warnings;
  json["no_grade"] = why_no_grade();
  json["figures"] = rows_json(c.figures);
  json["densities"] = nlohmann::ordered_json::array();
  for (const DensityDistance& d : c.densities) {
    nlohmann::ordered_json one{{"w1", number_json(d.value)},
                               {"lower", number_json(d.lower)},
                               {"upper", number_json(d.upper)},
                               {"shape", number_json(d.shape)},
                               {"shape_lower", number_json(d.shape_lower)},
                               {"shape_upper", number_json(d.shape_upper)}};
    one.update(verdict_json(d.verdict));
    json["densities"].push_back(one);
  }
  json["blocks"] = rows_json(c.blocks);
  json["layers"] = rows_json(c.layers);
  json["definitions"] = definitions_json();
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace hesspect
