// The report as one page of HTML: text, tables and pictures, and nothing that is elsewhere.
#include <cmath>

#include "chart.h"
#include "figure_text.h"
#include "hesspect/core/text.h"
#include "hesspect/report/compare.h"
#include "hesspect/report/report.h"
#include "page_style.h"
#include "population.h"
#include "result_charts.h"
#include "surface_script.h"

namespace hesspect {
namespace {

std::string element(const std::string& name, const std::string& inside, const std::string& css = "") {
  return "<" + name + (css.empty() ? "" : " class=\"" + css + "\"") + ">" + inside + "</" + name + ">";
}

/// 1.234e-05 as 1.234·10⁻⁵, with a real minus sign.
std::string number_html(std::string text) {
  const std::size_t e = text.find('e');
  if (e != std::string::npos)
    text = text.substr(0, e) + "·10<sup>" + std::to_string(std::stoi(text.substr(e + 1))) + "</sup>";
  std::string out;
  for (const char c : text) out += c == '-' ? std::string("−") : std::string(1, c);
  return out;
}

std::string number_html(double value) { return std::isfinite(value) ? number_html(format_number(value)) : "not known"; }

std::string value_html(const Figure& figure) {
  return figure.known() ? number_html(rounded_text(figure.value, figure)) : "not known";
}

std::string interval_html(const Figure& figure) {
  if (!figure.has_interval()) return "";
  return number_html(rounded_text(figure.lower, figure)) + " … " + number_html(rounded_text(figure.upper, figure));
}

std::string card(const Figure& figure) {
  const Definition& d = definition_of(figure.key);
  std::string text = element("span", escaped(d.name + (figure.of.empty() ? "" : ", " + figure.of)));
  text += element("b", figure.known() ? value_html(figure) : "–");
  text += element("span", !figure.known()         ? "not in this result"
                          : figure.has_interval() ? interval_html(figure)
                                                  : "no interval");
  return element("div", text, "card");
}

/// A few figures at a glance: no grades, just those that are asked for most.
std::string cards(const std::vector<Figure>& figures) {
  std::string text;
  bool has_dimension = false;
  for (const Figure& figure : figures) {
    const bool dimension = figure.key == "effective_dimension";
    const bool chosen = figure.key == "lambda_1" || figure.key == "lambda_min" || figure.key == "step_gd" ||
                        figure.key == "trace" || figure.key == "outliers" || figure.key == "negative_share" ||
                        (dimension && !has_dimension);
    has_dimension = has_dimension || dimension;
    if (chosen) text += card(figure);
  }
  return element("div", text, "cards");
}

std::string figure_row(const Figure& figure) {
  const Definition& d = definition_of(figure.key);
  std::string name = escaped(d.name + (figure.of.empty() ? "" : ", " + figure.of));
  const std::string about = element("p", escaped(d.definition)) +
                            element("p", element("b", "From") + " " + escaped(d.source) + ".") +
                            element("p", element("b", "Against") + " " + escaped(d.against));
  std::string value = value_html(figure);
  if (figure.known() && !d.unit.empty()) value += " " + element("span", escaped(d.unit), "soft");
  std::string told = escaped(figure.known() ? figure.interval : figure.missing);
  for (const std::string& more : {population_text(figure), figure.note})
    if (!more.empty()) told += (told.empty() ? "" : "; ") + escaped(more);
  return element("tr", element("td", "<details><summary>" + name + "</summary>" + about + "</details>") +
                           element("td", escaped(d.symbol)) + element("td", value, "number") +
                           element("td", interval_html(figure), "number") + element("td", told, "soft"));
}

std::string table(const std::string& heads, const std::string& rows) {
  return element("div", element("table", element("thead", element("tr", heads)) + element("tbody", rows)), "wide");
}

std::string heads(std::initializer_list<const char*> names) {
  std::string text;
  for (const char* name : names) text += element("th", name);
  return text;
}

std::string layer_table(const RunResult& r) {
  const std::vector<Figure> layers = layer_figures(r);
  if (layers.empty()) return "";
  std::string rows;
  for (std::size_t l = 0; l < layers.size(); ++l)
    rows += element(
        "tr", element("td", escaped(layers[l].of)) + element("td", format_count(r.layers[l].size), "number") +
                  element("td", value_html(layers[l]), "number") + element("td", interval_html(layers[l]), "number") +
                  element("td", number_html(r.layers[l].mean().value), "number"));
  return "<details><summary>All parameter tensors</summary>" +
         table(heads({"tensor", "entries", "trace", "interval", "mean of the diagonal"}), rows) + "</details>";
}

std::string distance_table(const RunResult& r) {
  const std::vector<Figure> weighted = weighted_layer_figures(r);
  if (weighted.empty()) return "";
  std::string rows;
  for (std::size_t l = 0; l < weighted.size(); ++l) {
    const LayerDistance& layer = r.initial->layers[l];
    rows += element("tr", element("td", escaped(layer.name)) + element("td", format_count(layer.entries), "number") +
                              element("td", number_html(layer.distance), "number") +
                              element("td", value_html(weighted[l]), "number") +
                              element("td", interval_html(weighted[l]), "number"));
  }
  return "<details><summary>How far each tensor has moved from the initial weights</summary>" +
         table(heads({"tensor", "entries", "distance", "trace × distance²", "interval"}), rows) + "</details>";
}

std::string block_table(const RunResult& r) {
  const auto blocks = block_figures(r);
  if (blocks.empty()) return "";
  std::string rows;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    std::string row = element("td", escaped(r.blocks->each[b].name)) +
                      element("td", format_count(r.blocks->each[b].parameters), "number");
    for (const Figure& figure : blocks[b])
      row += element("td",
                     figure.known()
                         ? value_html(figure) +
                               (figure.has_interval() ? "<br>" + element("span", interval_html(figure), "soft") : "")
                         : "–",
                     "number");
    rows += element("tr", row);
  }
  return element("h3", "Diagonal blocks") +
         element(
             "p",
             escaped("Each block is the curvature with respect to its own parameters alone, the others held fixed: its "
                     "largest eigenvalue is at most that of the whole."),
             "soft") +
         table(heads({"block", "parameters", "λ₁", "λₙ", "largest stable step", "trace", "mean eigenvalue"}), rows);
}

std::string block_steps_table(const RunResult& r) {
  const auto blocks = block_step_figures(r);
  if (blocks.empty()) return "";
  const auto cell = [](const Figure& figure) {
    if (!figure.known()) return element("td", escaped(figure.missing), "soft");
    std::string text = value_html(figure);
    if (!figure.note.empty()) text += "<br>" + element("span", escaped(figure.note), "soft");
    return element("td", text, "number");
  };
  const bool has_moments = r.sharpness->adam.has_value();
  std::string rows;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    std::string row = element("td", escaped(r.sharpness->blocks->each[b].name)) +
                      element("td", format_count(r.sharpness->blocks->each[b].parameters), "number");
    for (const Figure& figure : blocks[b]) row += cell(figure);
    rows += element("tr", row);
  }
  std::string head = heads({"block", "parameters", "λ₁", "largest stable step"});
  if (has_moments) head += heads({"λ₁ as Adam sees it", "Adam's largest stable rate"});
  return element("h3", "Largest stable steps by block") +
         element("p",
                 escaped("What each block alone allows, all other parameters held fixed; growth a step along its first "
                         "eigenvector by real gradients 5 % below and above. The whole allows no larger step than any "
                         "of them."),
                 "soft") +
         table(head, rows);
}

std::string measured_html(double value, double half_width) {
  if (!std::isfinite(value)) return "–";
  const std::string width = std::isfinite(half_width) ? number_html(half_width) : "not known";
  return number_html(value) + "<br>" + element("span", "± " + width, "soft");
}

std::string range_html(const FeatureChange& change) {
  if (!std::isfinite(change.value)) return "–";
  const bool is_known = std::isfinite(change.lower) && std::isfinite(change.upper);
  const std::string range =
      is_known ? "[" + number_html(change.lower) + ", " + number_html(change.upper) + "]" : "interval not known";
  return number_html(change.value) + "<br>" + element("span", range, "soft");
}

std::string feature_rows_table(const RunResult& r) {
  if (!r.features) return "";
  const FeaturesResult& all = *r.features;
  std::string rows;
  for (const FeatureResult& f : all.each) {
    std::string row = element("td", escaped(one_line(f.name))) +
                      element("td", number_html(all.frequency(f)), "number") +
                      element("td", format_count(f.in_use), "number") +
                      element("td", measured_html(f.largest.value, f.largest.standard_error), "number") +
                      element("td", measured_html(f.mean(), f.mean_half_width()), "number") +
                      element("td", number_html(f.norm), "number");
    for (const FeatureChange& c : f.changes)
      row += element("td", range_html(c), "number") +
             element("td", measured_html(c.predicted, c.predicted_half_width), "number");
    rows += element("tr", row);
  }
  std::string head = heads({"feature", "share of rows", "parameters in use", "λ₁", "trace per parameter", "norm"});
  for (const double rho : all.rho)
    head += element("th", "loss change, ρ = " + number_html(rho)) + element("th", "by the quadratic model");
  return element("h3", "Features, of largest eigenvalue first") + table(head, rows);
}

std::string picture(const std::string& svg, const std::string& title, const std::string& caption) {
  if (svg.empty()) return "";
  return element("figure", element("b", escaped(title)) + svg + element("figcaption", escaped(caption)));
}

std::string pictures(const RunResult& r) {
  std::string text;
  text += picture(tail_chart(r), "How many eigenvalues lie beyond λ",
                  "Right of zero the number above λ, left of it the number below. λ is on a log axis on both sides, "
                  "linear within the noise floor: bulk and outliers at once.");
  text += picture(density_chart(r), "Spectral density",
                  "Smoothed by a Gaussian kernel, for the eye. λ is linear within two widths of the kernel and "
                  "logarithmic beyond; the density is per unit of λ.");
  text += picture(eigenvalue_chart(r), "Computed eigenvalues",
                  "Bars are error bounds of the Lanczos run, mostly smaller than the marks.");
  text += picture(dimension_chart(r), "Effective dimension",
                  "How many directions have a curvature above c. Where it is flat, the number does not hang on c.");
  const std::string layers = layer_chart(r);
  if (!layers.empty())
    text += picture(layers, "Traces of parameter tensors",
                    r.layers.size() > 40 ? "The 40 of largest trace, in the model's order." : "In the model's order.");
  text += picture(block_chart(r), "How unlike the blocks' spectra are",
                  "Jensen-Shannon distance between the densities of two blocks: the darker, the less alike.");
  text +=
      picture(feature_chart(r), "Features: curvature over frequency",
              "Each dot is a feature's own block. Of a mean loss such a block grows with the share of the rows that "
              "touch it even where each of these rows is as sharp as any other.");
  if (r.landscape)
    text += picture(landscape_chart(r), "The loss around the parameters",
                    r.landscape->directions.size() > 1
                        ? "Over two directions, in lengths of these; the darker, the higher the loss."
                        : "Along one direction, in lengths of it, with the quadratic model that the curvature makes.");
  if (const std::string surface = landscape_surface(r); !surface.empty())
    text += "<figure class=\"surface\" hidden>" + element("b", "The loss and its quadratic model, to be turned") +
            surface +
            element("figcaption",
                    "Drag it, or use the arrow keys; a pointer near a point reads it. The dot is where the parameters "
                    "are; the model is cut off where it leaves the picture.") +
            "</figure>";
  return element("div", text, "figures");
}

std::string names_of(const std::vector<SourceFile>& files) {
  std::vector<std::string> names;
  for (const SourceFile& file : files) names.push_back(one_line(file.path));
  return format_names(names);
}

std::string section(const NamedResult& named, const FigureOptions& options) {
  const RunResult& r = named.result;
  const std::vector<Figure> figures = figures_of(r, options);
  std::string text = element("h2", escaped(named.name));
  std::string subject = subject_text(r) + ". Loss " + format_number(r.diagnostics.loss) + ", gradient norm " +
                        format_number(r.diagnostics.gradient_norm) + ".";
  if (!r.process.model.empty()) subject += " Model " + names_of(r.process.model) + ".";
  if (!r.process.weights.empty()) subject += " Weights " + names_of(r.process.weights) + ".";
  if (!r.process.data.empty()) subject += " Data " + names_of(r.process.data) + ".";
  text += element("p", escaped(subject), "soft");
  for (const std::string& warning : r.warnings) text += element("p", element("b", "Warning") + " " + escaped(warning));
  text +=
      cards(figures) + pictures(r) + element("h3", "All figures") +
      element("p", "Open one for what it means, where it is from, and what the literature says against it.", "soft");
  std::string rows;
  for (const Figure& figure : figures) rows += figure_row(figure);
  text += table(heads({"figure", "", "value", "interval", "the interval is"}), rows);
  return element("section", text + feature_rows_table(r) + block_table(r) + block_steps_table(r) + layer_table(r) +
                                distance_table(r));
}

std::string items(const std::vector<std::string>& sentences) {
  std::string text;
  for (const std::string& sentence : sentences) text += element("li", escaped(sentence));
  return element("ul", text);
}

}  // namespace

std::string report_html(const std::vector<NamedResult>& results, const FigureOptions& options) {
  std::string title = "hesspect report";
  if (results.size() == 1) title += ": " + results.front().name;
  std::string body = element("h1", "What the curvature says");
  body += element("p",
                  escaped("Second derivatives of the loss with respect to the parameters, on the data of the run. "
                          "Every number stands with what it is known to, where that is known."),
                  "soft");
  body += element("div", element("b", "This is no grade.") + " " + escaped(why_no_grade() + "."), "caveat");
  for (const NamedResult& named : results) body += section(named, options);
  body += element("section", element("h3", "The error that the data make") + items(data_error(results)) +
                                 element("h3", "Not measured here") + items(not_measured(results)));
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">" +
         std::string("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">") +
         element("title", escaped(title)) + element("style", kPageStyle) + "</head>\n<body>" + element("main", body) +
         (body.find("class=\"surface\"") == std::string::npos ? "" : element("script", kSurfaceScript)) +
         "</body></html>\n";
}

}  // namespace hesspect
