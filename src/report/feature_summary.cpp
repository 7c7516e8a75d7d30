#include "hesspect/report/feature_summary.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "figure_text.h"
#include "hesspect/core/text.h"
#include "hesspect/spectrum/analysis_figures.h"
#include "hesspect/spectrum/loss_changes.h"

namespace hesspect {
namespace {

/// From which skewness on the widened side of an interval is most of it.
constexpr double kSkewed = 0.5;

void add_changes(FeatureResult& f, const LossChanges& changes, const SkewedReach& reach, double rounding) {
  f.norm = changes.norm;
  for (std::size_t i = 0; i < changes.at.size(); ++i) {
    const ChangeEstimate e = change_estimate(changes, i, f.in_use, f.trace, f.trace_half_width, reach, rounding);
    f.changes.push_back({e.value, e.lower, e.upper, e.skewness, e.predicted, e.predicted_half_width,
                         changes.at[i].largest, changes.at[i].along, e.controlled});
  }
}

void add_analysis(FeatureResult& f, const FinishedBlock& done, const Goals& goals) {
  const BlocksGoal& blocks = *goals.blocks;
  const Analysis& a = done.analysis;
  f.products = a.products + (done.changes ? std::ssize(done.changes->curvature) : 0);
  f.product_s = done.product_s;
  if (a.eigenvalues && !a.eigenvalues->top.empty()) {
    f.largest = {a.eigenvalues->top.front().value, a.eigenvalues->top.front().error};
    f.converged = a.eigenvalues->converged;
  }
  const TraceEstimate trace = trace_of(a, f.in_use, blocks.trace->rule, goals.rounding);
  f.trace = trace.value;
  f.trace_half_width = trace.half_width;
  f.converged = f.converged && trace.converged;
}

/// Nothing depends on it.
void set_unused(FeatureResult& f, std::size_t sizes) {
  f.largest = {0, 0};
  f.trace = f.trace_half_width = f.norm = 0;
  f.changes.assign(sizes, FeatureChange{});
}

/// The features that a correlation is over.
struct Group {
  std::string name;  // behind what is correlated
  std::vector<bool> has;
};

void correlate_pair(FeaturesResult& all, const Group& group, const std::string& what,
                    const std::vector<std::vector<double>>& columns) {
  std::vector<std::vector<double>> kept(columns.size());
  for (std::size_t i = 0; i < all.each.size(); ++i) {
    const bool known = group.has[i] && !all.each[i].nested &&
                       std::ranges::all_of(columns, [&](const auto& column) { return std::isfinite(column[i]); });
    for (std::size_t c = 0; known && c < columns.size(); ++c) kept[c].push_back(columns[c][i]);
  }
  FeatureCorrelation one;
  one.what = what + group.name;
  one.found = kept.size() == 2 ? spearman(kept[0], kept[1], all.confidence)
                               : partial_spearman(kept[0], kept[1], kept[2], all.confidence);
  if (std::isnan(one.found.value))
    one.missing = one.found.count < kLeastPairs
                      ? "too few features: " + std::to_string(one.found.count) + " that are not nested and have both"
                  : kept.size() == 2 ? "one of both is the same for all features"
                                     : "what is given explains one of both entirely, or is the same for all";
  all.correlations.push_back(std::move(one));
}

/// All features; and where they are of several tensors, those of each that has enough of its own: what holds over
/// tables need not hold within any.
std::vector<Group> groups_of(const FeaturesResult& all) {
  std::vector<Group> groups{{"", std::vector<bool>(all.each.size(), true)}};
  const auto counts = [&](const FeatureResult& f) { return !f.nested && std::isfinite(all.frequency(f)); };
  std::vector<std::string> tensors;
  for (const FeatureResult& f : all.each)
    if (f.tensors.size() == 1 && std::ranges::find(tensors, f.tensors.front()) == tensors.end())
      tensors.push_back(f.tensors.front());
  std::ranges::sort(tensors);
  for (const std::string& tensor : tensors) {
    Group group{", within " + tensor, {}};
    std::int64_t count = 0;
    for (const FeatureResult& f : all.each) {
      const bool has = f.tensors.size() == 1 && f.tensors.front() == tensor;
      group.has.push_back(has);
      count += has && counts(f);
    }
    if (count >= kLeastPairs && count < std::ranges::count_if(all.each, counts)) groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace

void correlate(FeaturesResult& all) {
  all.correlations.clear();
  const auto column = [&](auto get) {
    std::vector<double> values;
    for (const FeatureResult& f : all.each) values.push_back(get(f));
    return values;
  };
  const auto frequency = column([&](const FeatureResult& f) { return all.frequency(f); });
  const auto largest = column([](const FeatureResult& f) { return f.largest.value; });
  const auto mean = column([](const FeatureResult& f) { return f.mean(); });
  // Of a mean loss a block is a share of the rows times the mean over them: what is left without the share.
  const auto per_touch = column([&](const FeatureResult& f) { return f.largest.value / all.frequency(f); });
  for (const Group& group : groups_of(all)) {
    const auto add = [&](const std::string& what, const std::vector<std::vector<double>>& columns) {
      correlate_pair(all, group, what, columns);
    };
    add("frequency and largest eigenvalue", {frequency, largest});
    add("frequency and largest eigenvalue per touch", {frequency, per_touch});
    const bool whole = group.name.empty();
    if (whole) add("frequency and trace per parameter", {frequency, mean});
    for (std::size_t k = 0; k < (whole ? all.rho.size() : std::min<std::size_t>(1, all.rho.size())); ++k) {
      const std::string size = " at rho " + format_number(all.rho[k]);
      const auto change = column([&](const FeatureResult& f) { return f.changes.at(k).value; });
      add("frequency and loss change" + size, {frequency, change});
      if (whole) add("largest eigenvalue and loss change" + size, {largest, change});
      add("largest eigenvalue and loss change" + size + ", given log frequency", {largest, change, frequency});
    }
  }
}

FeaturesResult features_of(const Goals& goals, const Ledger& ledger, const Diagnostics& diagnostics) {
  const BlocksGoal& blocks = *goals.blocks;
  FeaturesResult all;
  all.each = blocks.features;
  if (blocks.changes) {
    all.rho = blocks.changes->rho;
    all.draws = blocks.changes->draws;
  }
  all.confidence = goals.confidence;
  all.data_rows = diagnostics.rows;
  all.loss = diagnostics.loss;
  all.rounding = blocks.changes ? std::abs(all.loss) * blocks.changes->epsilon : 0;
  const SkewedReach reach(all.draws, goals.confidence);
  for (FeatureResult& f : all.each) {
    const FinishedBlock* done = ledger.block(f.name);
    if (f.in_use == 0 || done == nullptr) {
      set_unused(f, all.rho.size());
      continue;
    }
    add_analysis(f, *done, goals);
    if (done->changes) add_changes(f, *done->changes, reach, all.rounding);
  }
  std::ranges::stable_sort(all.each, std::greater<>(), [](const FeatureResult& f) { return f.largest.value; });
  correlate(all);
  return all;
}

std::vector<std::string> feature_warnings(const FeaturesResult& all, std::int64_t most_products) {
  std::vector<std::string> warnings, open, skewed;
  std::int64_t hidden = 0;
  for (const FeatureResult& f : all.each) {
    if (!f.converged) open.push_back(quote(f.name));
    hidden += std::ranges::any_of(f.changes, [&](const FeatureChange& c) {
      return f.norm > 0 && f.in_use > 0 && std::abs(c.value) < 20 * all.rounding;
    });
    if (std::ranges::any_of(f.changes, [](const FeatureChange& c) {
          return std::abs(c.skewness) > kSkewed && c.upper - c.lower > std::abs(c.value);
        }))
      skewed.push_back(quote(f.name));
  }
  if (!open.empty())
    warnings.push_back("eigenvalue or trace of " + format_count(std::ssize(open)) + " of " +
                       format_count(std::ssize(all.each)) +
                       " features are not known as well as asked: " + format_names(open, 3) + "; raise --block-hvps " +
                       std::to_string(most_products) + ", --rtol-eigs or --rtol-trace");
  if (hidden > 0)
    warnings.push_back("the loss's change by steps in " + format_count(hidden) +
                       " features is little more than the loss's rounding, " + format_number(all.rounding) +
                       ": take a larger --feature-rho, or --dtype float64");
  if (!skewed.empty())
    warnings.push_back(
        "the mean change of the loss by steps in " + format_count(std::ssize(skewed)) + " of " +
        format_count(std::ssize(all.each)) +
        " features rests on few of the directions drawn: " + format_names(skewed, 3) +
        "; the interval is wide on that side, and what no draw met is not in it; raise --feature-draws " +
        std::to_string(all.draws));
  return warnings;
}

}  // namespace hesspect
