// The report as text and as JSON, and what both and the page share.
#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "feature_json.h"
#include "figure_text.h"
#include "hesspect/core/text.h"
#include "hesspect/report/compare.h"
#include "hesspect/report/feature_summary.h"
#include "hesspect/report/report.h"
#include "landscape_text.h"
#include "population.h"

namespace hesspect {
namespace {

constexpr std::size_t kLine = 100;
constexpr std::size_t kMostLayersListed = 40;

/// Lines of at most kLine characters, each behind the indent.
std::string wrapped(const std::string& text, const std::string& indent) {
  std::istringstream words(text);
  std::string out, line = indent;
  for (std::string word; words >> word;) {
    if (characters(line) + 1 + characters(word) > kLine && line != indent) {
      out += line + "\n";
      line = indent;
    }
    line += (line == indent ? "" : " ") + word;
  }
  return out + line + "\n";
}

std::string source_hash(const std::vector<SourceFile>& files) {
  std::string text;
  for (const SourceFile& file : files) text += file.sha256 + " ";
  return text;
}

std::string source_names(const std::vector<SourceFile>& files) {
  std::vector<std::string> names;
  for (const SourceFile& file : files) names.push_back(one_line(file.path));
  return format_names(names);
}

void add_figures(std::string& text, const RunResult& r, const FigureOptions& options) {
  for (const Figure& figure : figures_of(r, options)) {
    const Definition& d = definition_of(figure.key);
    const std::string name = d.name + (figure.of.empty() ? "" : ", " + figure.of);
    text += "  " + padded(name, 46) + " " + padded(d.symbol, 18) + " " + value_text(figure);
    if (figure.known() && !d.unit.empty()) text += " " + d.unit;
    if (figure.has_interval()) text += "  (" + figure.interval + ")";
    if (const std::string rows = population_text(figure); !rows.empty()) text += "; " + rows;
    if (!figure.note.empty()) text += "; " + figure.note;
    text += "\n";
  }
}

void add_blocks_listed(std::string& text, const RunResult& r) {
  for (const auto& all : {block_figures(r), block_step_figures(r)})
    for (const auto& block : all) {
      if (block.empty()) continue;
      text += "\n  block " + one_line(block.front().of) + "\n";
      for (const Figure& figure : block)
        if (figure.known())
          text += "    " + padded(definition_of(figure.key).name, 44) + " " + value_text(figure) +
                  (figure.note.empty() ? "" : "; " + figure.note) + "\n";
    }
}

void add_layers_listed(std::string& text, const RunResult& r) {
  const std::vector<Figure> layers = layer_figures(r);
  if (layers.empty()) return;
  text += "\n  " + padded("traces of parameter tensors", 46) + " mean of the diagonal, and the trace\n";
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (l == kMostLayersListed) {
      text += "  ... and " + format_count(static_cast<std::int64_t>(layers.size() - l)) + " more\n";
      break;
    }
    text += "  " + padded(one_line(layers[l].of), 46) + " " + padded(format_number(r.layers[l].mean().value), 14) +
            " " + value_text(layers[l]) + "\n";
  }
}

void add_distances_listed(std::string& text, const RunResult& r) {
  const std::vector<Figure> weighted = weighted_layer_figures(r);
  if (weighted.empty()) return;
  text += "\n  " + padded("moved from the initial weights", 46) + " distance, and the trace times its square\n";
  for (std::size_t l = 0; l < weighted.size(); ++l) {
    if (l == kMostLayersListed) {
      text += "  ... and " + format_count(static_cast<std::int64_t>(weighted.size() - l)) + " more\n";
      break;
    }
    text += "  " + padded(one_line(weighted[l].of), 46) + " " +
            padded(format_number(r.initial->layers[l].distance), 14) + " " + value_text(weighted[l]) + "\n";
  }
}

nlohmann::ordered_json landscape_json(const Landscape& l) {
  nlohmann::ordered_json json{{"loss_at_start", number_json(l.loss_at_start)}, {"tolerance", number_json(l.tolerance)}};
  json["directions"] = nlohmann::ordered_json::array();
  for (const LandscapeDirection& d : l.directions)
    json["directions"].push_back({{"name", one_line(d.name)},
                                  {"length", number_json(d.norm)},
                                  {"slope", number_json(d.slope)},
                                  {"bend", number_json(d.bend)},
                                  {"valid_below", number_json(d.valid_below)},
                                  {"valid_below_fails", number_json(d.valid_below_fails)},
                                  {"valid_above", number_json(d.valid_above)},
                                  {"valid_above_fails", number_json(d.valid_above_fails)}});
  return json;
}

nlohmann::ordered_json result_json(const NamedResult& named, const FigureOptions& options) {
  const RunResult& r = named.result;
  nlohmann::ordered_json json;
  json["file"] = named.name;
  json["subject"] = subject_text(r);
  json["curvature"] = r.process.curvature;
  json["loss_kind"] = r.process.loss_kind;
  json["reduction"] = r.process.reduction;
  json["n_parameters"] = r.diagnostics.parameters;
  json["n_rows"] = r.diagnostics.rows;
  json["loss"] = number_json(r.diagnostics.loss);
  json["gradient_norm"] = number_json(r.diagnostics.gradient_norm);
  json["warnings"] = r.warnings;
  json["figures"] = nlohmann::ordered_json::array();
  for (const Figure& figure : figures_of(r, options)) json["figures"].push_back(figure_json(figure));
  json["layers"] = nlohmann::ordered_json::array();
  const std::vector<Figure> layers = layer_figures(r);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    nlohmann::ordered_json layer = figure_json(layers[l]);
    layer["size"] = r.layers[l].size;
    layer["mean"] = number_json(r.layers[l].mean().value);
    json["layers"].push_back(layer);
  }
  const std::vector<Figure> weighted = weighted_layer_figures(r);
  for (std::size_t l = 0; l < weighted.size(); ++l) {
    nlohmann::ordered_json moved = figure_json(weighted[l]);
    moved["entries"] = r.initial->layers[l].entries;
    moved["distance"] = number_json(r.initial->layers[l].distance);
    json["moved"].push_back(moved);
  }
  json["blocks"] = nlohmann::ordered_json::array();
  const auto blocks = block_figures(r);
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    nlohmann::ordered_json block{{"name", one_line(r.blocks->each[b].name)},
                                 {"n_parameters", r.blocks->each[b].parameters}};
    block["figures"] = nlohmann::ordered_json::array();
    for (const Figure& figure : blocks[b]) block["figures"].push_back(figure_json(figure));
    json["blocks"].push_back(block);
  }
  const auto steps = block_step_figures(r);
  for (std::size_t b = 0; b < steps.size(); ++b) {
    const BlockSteps& one = r.sharpness->blocks->each[b];
    nlohmann::ordered_json block{{"name", one_line(one.name)}, {"n_parameters", one.parameters}};
    block["figures"] = nlohmann::ordered_json::array();
    for (const Figure& figure : steps[b]) block["figures"].push_back(figure_json(figure));
    json["block_steps"].push_back(block);
  }
  if (r.features) json["features"] = features_json(*r.features);
  if (r.landscape) json["landscape"] = landscape_json(*r.landscape);
  return json;
}

/// The figures that the results have a value of: a reader wants no definition of others.
std::set<std::string> keys_shown(const std::vector<NamedResult>& results, const FigureOptions& options) {
  std::set<std::string> keys;
  const auto add = [&](const std::vector<Figure>& figures) {
    for (const Figure& figure : figures)
      if (figure.known()) keys.insert(figure.key);
  };
  for (const NamedResult& named : results) {
    add(figures_of(named.result, options));
    add(layer_figures(named.result));
    add(weighted_layer_figures(named.result));
    for (const std::vector<Figure>& block : block_figures(named.result)) add(block);
    for (const std::vector<Figure>& block : block_step_figures(named.result)) add(block);
  }
  return keys;
}

}  // namespace

std::vector<std::string> data_error(const std::vector<NamedResult>& results) {
  std::vector<std::string> sentences;
  for (const NamedResult& named : results)
    if (const std::string sentence = data_error_sentence(named); !sentence.empty()) sentences.push_back(sentence);
  for (std::size_t i = 0; i < results.size(); ++i)
    for (std::size_t j = i + 1; j < results.size(); ++j) {
      const RunResult &a = results[i].result, &b = results[j].result;
      const bool same = !a.process.model.empty() && source_hash(a.process.model) == source_hash(b.process.model) &&
                        source_hash(a.process.weights) == source_hash(b.process.weights) &&
                        a.process.curvature == b.process.curvature && a.process.loss_kind == b.process.loss_kind;
      const bool other_rows =
          source_hash(a.process.data) != source_hash(b.process.data) || a.diagnostics.rows != b.diagnostics.rows;
      if (!same || !other_rows) continue;
      std::string text =
          quote(results[i].name) + " and " + quote(results[j].name) + " are of the same weights on other rows";
      const auto add = [&](const std::string& what, double x, double y) {
        if (std::isfinite(x) && std::isfinite(y))
          text += "; " + what + " " + format_number(x) + " and " + format_number(y);
      };
      const Figure first = figures_of(a, {}).front(), second = figures_of(b, {}).front();
      add("λ₁", first.value, second.value);
      if (a.trace && b.trace) add("trace", a.trace->value, b.trace->value);
      add("loss", a.diagnostics.loss, b.diagnostics.loss);
      sentences.push_back(
          text +
          ". Where both halves are drawn alike and share no row, half the difference is about the "
          "standard error that the data make in the mean of both; λ₁ of few rows is too large in the mean.");
    }
  if (sentences.empty())
    sentences.push_back(
        "The error that the data make is not measured: intervals are of the run on these rows. Run with --data-error "
        "16, or give the results of the same weights on halves of the data (two --data files) beside this one.");
  return sentences;
}

std::vector<std::string> not_measured(const std::vector<NamedResult>& results) {
  const auto any = [&](auto has) {
    return std::ranges::any_of(results, [&](const NamedResult& one) { return has(one.result); });
  };
  std::vector<std::string> all;
  if (!any([](const RunResult& r) { return r.sharpness.has_value(); }))
    all.emplace_back(
        "what finite steps do: SAM at a radius ρ, stable steps checked by taking them, the basin's radius "
        "('sharpness')");
  if (!any([](const RunResult& r) { return r.landscape.has_value(); }))
    all.emplace_back("the loss along directions, and how far the quadratic model holds ('landscape')");
  if (!any([](const RunResult& r) { return r.inputs.has_value(); }))
    all.emplace_back("sharpness in the inputs ('inputs')");
  if (!any([](const RunResult& r) { return r.sharpness && r.sharpness->adam; }))
    all.emplace_back("the largest eigenvalue preconditioned by Adam's second moments ('sharpness --second-moments')");
  if (!any([](const RunResult& r) { return r.sharpness && r.sharpness->blocks; }))
    all.emplace_back("largest stable steps by block, checked by taking them ('sharpness --blocks per-module')");
  if (!any([](const RunResult& r) { return r.initial.has_value(); }))
    all.emplace_back("traces weighted by the distance from initialisation ('analyze --initial-weights')");
  if (!any([](const RunResult& r) { return r.sharpness && r.sharpness->information; }))
    all.emplace_back("relative flatness, Fisher-Rao norm, Takeuchi's criterion ('sharpness --measure-probes')");
  if (!any([](const RunResult& r) { return r.quality.has_value(); }))
    all.emplace_back("the loss gap and calibration on a second data file ('sharpness --other-data')");
  if (!any([](const RunResult& r) { return r.features.has_value(); }))
    all.emplace_back(
        "curvature, frequency and sensitivity of features: tables, their rows, input columns ('features')");
  return all;
}

std::string report_text(const std::vector<NamedResult>& results, const FigureOptions& options) {
  std::string text;
  for (const NamedResult& named : results) {
    const RunResult& r = named.result;
    text += "report of " + one_line(named.name) + "\n  " + subject_text(r) + "\n";
    if (!r.process.model.empty()) text += "  model " + source_names(r.process.model) + "\n";
    if (!r.process.weights.empty()) text += "  weights " + source_names(r.process.weights) + "\n";
    if (!r.process.data.empty()) text += "  data " + source_names(r.process.data) + "\n";
    text += "  loss " + format_number(r.diagnostics.loss) + ", gradient norm " +
            format_number(r.diagnostics.gradient_norm) + "\n";
    for (const std::string& warning : r.warnings) text += "  warning: " + one_line(warning) + "\n";
    text += "\n";
    add_figures(text, r, options);
    add_blocks_listed(text, r);
    add_layers_listed(text, r);
    add_distances_listed(text, r);
    if (r.features)
      for (const std::string& line : feature_table(*r.features)) text += line + "\n";
    if (r.landscape)
      for (const auto& [name, value] : landscape_lines(*r.landscape))
        text += "  " + padded(name, 46) + " " + value + "\n";
    text += "\n";
  }
  for (const std::string& sentence : data_error(results)) text += wrapped(sentence, "");
  text += "\nWhat these figures are\n";
  const std::set<std::string> shown = keys_shown(results, options);
  for (const Definition& d : definitions()) {
    if (!shown.contains(d.key)) continue;
    text += "\n  " + d.name + ", " + d.symbol + "\n" + wrapped(d.definition, "    ") +
            wrapped("From: " + d.source + ".", "    ") + wrapped("Against: " + d.against, "    ");
  }
  text += "\n" + wrapped(why_no_grade() + ".", "") + "\nNot measured here\n";
  for (const std::string& one : not_measured(results)) text += wrapped(one, "  ");
  return text;
}

std::string report_json(const std::vector<NamedResult>& results, const FigureOptions& options) {
  nlohmann::ordered_json json;
  json["results"] = nlohmann::ordered_json::array();
  for (const NamedResult& named : results) json["results"].push_back(result_json(named, options));
  json["data_error"] = data_error(results);
  json["no_grade"] = why_no_grade();
  json["not_measured"] = not_measured(results);
  json["definitions"] = definitions_json();
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace hesspect
