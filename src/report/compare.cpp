#include "hesspect/report/compare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "population.h"
#include "tail.h"

namespace hesspect {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

/// How many more products bring a half width down to `to` of what it is; infinite where none do.
double products_for(const Falling& falling, double to) {
  if (!(to < 1)) return 0;
  if (!(to > 0)) return kNever;
  if (falling.rate > 0) return -std::log(to) / falling.rate;
  if (falling.power > 0) return falling.products * (std::pow(to, -1 / falling.power) - 1);
  return kNever;
}

bool falls(const Falling& falling) { return falling.rate > 0 || (falling.power > 0 && falling.products > 0); }

/// Both half widths shrink alike until the intervals part; one that can't shrink stays as it is.
double products_to_part(const Figure& a, const Figure& b, double width_a, double width_b, double distance) {
  double fixed = 0, shrinking = 0;
  for (const auto& [figure, width] : {std::pair(&a, width_a), {&b, width_b}})
    (falls(figure->falling) ? shrinking : fixed) += width;
  if (!(distance > fixed) || !(shrinking > 0)) return kNever;
  const double to = (distance - fixed) / shrinking;
  double products = 0;
  for (const Figure* figure : {&a, &b})
    if (falls(figure->falling)) products += products_for(figure->falling, to);
  return std::max(1.0, std::ceil(products));
}

std::string files_hash(const std::vector<SourceFile>& files) {
  std::string text;
  for (const SourceFile& file : files) text += file.sha256 + " ";
  return text;
}

/// The options that loss and matrix are made of.
constexpr std::array kLossOptions = {"params",       "exclude",         "fisher-unit",   "output-index", "shift",
                                     "ignore-index", "label-smoothing", "class-weights", "pos-weight",   "beta",
                                     "delta",        "loss-weight",     "count-output"};

/// The value of an option in a result's configuration; "not given" where it has none.
std::string option_value(const RunResult& r, const std::string& name) {
  const std::string text = "\n" + r.process.config, key = "\n" + name + " = ";
  const std::size_t at = text.find(key);
  if (at == std::string::npos) return "not given";
  const std::size_t begin = at + key.size();
  return text.substr(begin, text.find('\n', begin) - begin);
}

/// What keeps `other` from being compared with `first`.
std::vector<std::string> reasons_against(const RunResult& first, const RunResult& other, bool force) {
  std::vector<std::string> reasons;
  const auto same = [&](const std::string& what, const std::string& mine, const std::string& its) {
    if (mine != its) reasons.push_back("its " + what + " is " + one_line(mine) + ", not " + one_line(its));
  };
  same("matrix", other.process.curvature, first.process.curvature);
  same("loss", other.process.loss_kind, first.process.loss_kind);
  same("reduction", other.process.reduction, first.process.reduction);
  if (!first.process.config.empty() && !other.process.config.empty())
    for (const char* name : kLossOptions)
      same(std::string("--") + name, option_value(other, name), option_value(first, name));
  if (!force && other.diagnostics.parameters != first.diagnostics.parameters)
    reasons.push_back("it has " + format_count(other.diagnostics.parameters) + " parameters, not " +
                      format_count(first.diagnostics.parameters) + " (--force compares them all the same)");
  return reasons;
}

void add_warnings(std::vector<std::string>& warnings, const NamedResult& first, const NamedResult& other) {
  const RunResult &a = first.result, &b = other.result;
  const auto warn = [&](const std::string& what) { warnings.push_back(quote(other.name) + " " + what); };
  if (files_hash(a.process.data) != files_hash(b.process.data))
    warn("was computed on other data than " + quote(first.name) +
         ": a difference may be the data's, but where "
         "verdicts are of the rows' populations");
  else if (a.diagnostics.rows != b.diagnostics.rows)
    warn("was computed on " + format_count(b.diagnostics.rows) + " rows, " + quote(first.name) + " on " +
         format_count(a.diagnostics.rows) + ": a difference may be the data's");
  if (a.diagnostics.parameters != b.diagnostics.parameters)
    warn("has another number of parameters: its spectrum is of another space");
  const bool same_weights = files_hash(a.process.model) == files_hash(b.process.model) &&
                            files_hash(a.process.weights) == files_hash(b.process.weights);
  if (same_weights && !a.process.model.empty())
    warn("is of the same model and weights as " + quote(first.name) + ": differences are of data and of the runs");
  if (a.process.dtype != b.process.dtype || a.process.precision != b.process.precision)
    warn("was computed in " + b.process.dtype + " (" + b.process.precision + "), " + quote(first.name) + " in " +
         a.process.dtype + " (" + a.process.precision + ")");
}

bool on_other_rows(const RunResult& a, const RunResult& b) {
  return files_hash(a.process.data) != files_hash(b.process.data) || a.diagnostics.rows != b.diagnostics.rows;
}

ComparedFigure side_by_side(const std::vector<NamedResult>& results, std::vector<Figure> figures) {
  ComparedFigure row{std::move(figures), {}};
  for (std::size_t i = 0; i < row.figures.size(); ++i) {
    const auto verdict = on_other_rows(results.front().result, results[i].result) ? verdict_over_rows : verdict_of;
    row.verdicts.push_back(i == 0 ? Verdict{} : verdict(row.figures[0], row.figures[i]));
  }
  return row;
}

/// The figures of all results in rows. Effective dimensions are of the same constants: shares of the first's λ₁.
std::vector<ComparedFigure> compared_figures(const std::vector<NamedResult>& results, const FigureOptions& options) {
  std::vector<std::vector<Figure>> all;
  for (const NamedResult& one : results) all.push_back(figures_of(one.result, options));
  std::vector<ComparedFigure> rows;
  for (const Definition& definition : definitions()) {
    std::vector<std::vector<Figure>> of_key(all.size());
    for (std::size_t i = 0; i < all.size(); ++i)
      std::ranges::copy_if(all[i], std::back_inserter(of_key[i]),
                           [&](const Figure& figure) { return figure.key == definition.key; });
    const bool effective = definition.key == "effective_dimension";
    for (std::size_t f = 0; f < of_key.front().size(); ++f) {
      std::vector<Figure> figures{of_key.front()[f]};
      for (std::size_t i = 1; i < all.size(); ++i) {
        const bool here = f < of_key[i].size();
        figures.push_back(here ? of_key[i][f] : of_key[i].empty() ? Figure{} : of_key[i].front());
        if (effective && figures.front().known() && of_key[i].front().known())
          figures.back() = effective_dimension(results[i].result, std::strtod(figures.front().of.c_str() + 4, nullptr));
      }
      rows.push_back(side_by_side(results, figures));
    }
  }
  return rows;
}

std::vector<ComparedFigure> compared_layers(const std::vector<NamedResult>& results) {
  std::vector<std::vector<Figure>> all;
  for (const NamedResult& one : results) all.push_back(layer_figures(one.result));
  std::vector<ComparedFigure> rows;
  for (const Figure& layer : all.front()) {
    std::vector<Figure> figures{layer};
    for (std::size_t i = 1; i < all.size(); ++i)
      if (const auto same = std::ranges::find(all[i], layer.of, &Figure::of); same != all[i].end())
        figures.push_back(*same);
    if (figures.size() == all.size()) rows.push_back(side_by_side(results, figures));
  }
  return rows;
}

/// Each block's figures, of blocks and figures that all have.
std::vector<ComparedFigure> compared_blocks(const std::vector<NamedResult>& results) {
  std::vector<std::vector<Figure>> all;
  for (const NamedResult& one : results) {
    all.emplace_back();
    for (const auto& blocks : {block_figures(one.result), block_step_figures(one.result)})
      for (const auto& block : blocks) std::ranges::copy(block, std::back_inserter(all.back()));
  }
  std::vector<ComparedFigure> rows;
  for (const Figure& first : all.front()) {
    if (!first.known()) continue;
    std::vector<Figure> figures{first};
    for (std::size_t i = 1; i < all.size(); ++i)
      for (const Figure& other : all[i])
        if (other.key == first.key && other.of == first.of && other.known()) figures.push_back(other);
    if (figures.size() == all.size()) rows.push_back(side_by_side(results, figures));
  }
  return rows;
}

DensityDistance distance_between(const RunResult& a, const RunResult& b) {
  const CumulativeDensity &f = *a.cumulative, &g = *b.cumulative;
  DensityDistance distance;
  distance.value = wasserstein_distance(f, g);
  distance.lower = std::max(0.0, distance.value - f.w1 - g.w1);
  distance.upper = distance.value + f.w1 + g.w1;
  Figure first, other;  // of the distance as two intervals about 0 and itself
  const auto falling = [](const RunResult& r) {
    double products = 0;
    for (const ProbeQuadrature& q : r.quadrature) products += static_cast<double>(q.alpha.size());
    return Falling{products, r.cumulative->w1_sampling > r.cumulative->w1_quadrature ? 0.5 : 1.0, 0};
  };
  first.value = 0;
  first.lower = -f.w1;
  first.upper = f.w1;
  first.falling = falling(a);
  other.value = distance.value;
  other.lower = distance.value - g.w1;
  other.upper = distance.value + g.w1;
  other.falling = falling(b);
  distance.verdict = verdict_of(first, other);
  const double scale_a = f.range_hi, scale_b = g.range_hi;
  if (scale_a > 0 && scale_b > 0) {
    const double bound = f.w1 / scale_a + g.w1 / scale_b;
    distance.shape = wasserstein_distance(f, g, scale_a, scale_b);
    distance.shape_lower = std::max(0.0, distance.shape - bound);
    distance.shape_upper = distance.shape + bound;
  }
  return distance;
}

}  // namespace

Verdict verdict_of(const Figure& a, const Figure& b) {
  using Kind = Verdict::Kind;
  if (!a.known() || !b.known() || !a.has_interval() || !b.has_interval()) return {};
  if (b.lower > a.upper) return {Kind::kHigher, 0};
  if (b.upper < a.lower) return {Kind::kLower, 0};
  if (a.value == b.value && a.lower == a.upper && b.lower == b.upper) return {Kind::kEqual, 0};
  const bool above = b.value > a.value;
  const double width_a = above ? a.upper - a.value : a.value - a.lower;
  const double width_b = above ? b.value - b.lower : b.upper - b.value;
  return {Kind::kUndecided, products_to_part(a, b, width_a, width_b, std::abs(b.value - a.value))};
}

Verdict verdict_over_rows(const Figure& a, const Figure& b) {
  const bool populations = a.has_population() && b.has_population();
  Verdict verdict = populations ? verdict_of(of_population(a), of_population(b)) : verdict_of(a, b);
  verdict.basis = populations ? Verdict::Basis::kPopulations : Verdict::Basis::kRowsAlone;
  return verdict;
}

std::string verdict_text(const Verdict& verdict) {
  using Basis = Verdict::Basis;
  const std::string of = verdict.basis == Basis::kPopulations ? " in the rows' populations"
                         : verdict.basis == Basis::kRowsAlone ? " on these rows; of others nothing is known"
                                                              : "";
  switch (verdict.kind) {
    case Verdict::Kind::kNone: return "";
    case Verdict::Kind::kEqual: return "equal" + of;
    case Verdict::Kind::kLower: return "lower" + of;
    case Verdict::Kind::kHigher: return "higher" + of;
    case Verdict::Kind::kUndecided: break;
  }
  if (verdict.basis == Basis::kPopulations)
    return "can't be told of the rows' populations: more rows would narrow them";
  if (!std::isfinite(verdict.products)) return "can't be told, and not by more products";
  if (verdict.products > 1e9) return "can't be told: more than 1e9 more products would";
  // Two digits: it is a forecast.
  const double unit = std::pow(10.0, std::max(0.0, std::floor(std::log10(verdict.products)) - 1));
  const auto rounded = static_cast<std::int64_t>(std::ceil(verdict.products / unit) * unit);
  return "can't be told: about " + format_count(rounded) + " more product" + (rounded == 1 ? "" : "s") + " would";
}

Comparison compare(const std::vector<NamedResult>& results, const FigureOptions& options, bool force) {
  if (results.size() < 2) throw UsageError("'compare' needs two results or more. " + why_no_grade());
  Comparison comparison;
  for (const NamedResult& one : results) comparison.names.push_back(one.name);
  for (std::size_t i = 1; i < results.size(); ++i) {
    const auto reasons = reasons_against(results[0].result, results[i].result, force);
    if (!reasons.empty()) {
      std::string text = quote(results[i].name) + " can't be compared with " + quote(results[0].name) + ": ";
      for (std::size_t k = 0; k < reasons.size(); ++k) text += (k > 0 ? "; " : "") + reasons[k];
      throw InputError(text);
    }
    add_warnings(comparison.warnings, results[0], results[i]);
  }
  comparison.figures = compared_figures(results, options);
  comparison.layers = compared_layers(results);
  comparison.blocks = compared_blocks(results);
  const bool densities = std::ranges::all_of(
      results, [](const NamedResult& one) { return one.result.cumulative && !one.result.cumulative->lambda.empty(); });
  if (densities)
    for (const NamedResult& one : results)
      comparison.densities.push_back(distance_between(results[0].result, one.result));
  return comparison;
}

std::string why_no_grade() {
  return "One model alone is not graded: rescaling its weights changes its curvature at will while it computes the "
         "same "
         "function (Dinh et al. 2017, arXiv:1703.04933), and even between models trained alike a lower curvature need "
         "not go with better generalisation (Kaur et al. 2022, arXiv:2206.10654; Andriushchenko et al. 2023, "
         "arXiv:2302.07011)";
}

}  // namespace hesspect
