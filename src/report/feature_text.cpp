// Features in words.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "hesspect/core/text.h"
#include "hesspect/report/feature_summary.h"
#include "padded.h"
#include "rounded.h"

namespace hesspect {
namespace {

constexpr std::size_t kMostListed = 40;

/// As many digits as are known.
std::string as_known(double value, double half_width) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", half_width);
  if (!std::isfinite(half_width)) return format_number(value);
  if (half_width < 1e-6 * std::abs(value)) return format_number(value) + " ± " + text;
  return rounded_to(value, half_width, std::max(std::abs(value), half_width)) + " ± " + text;
}

/// "0.0123 [0.0121, 0.0139]": its interval is wider on one side.
std::string as_range(const FeatureChange& change) {
  const double width = std::max(change.upper - change.value, change.value - change.lower);
  if (!std::isfinite(width)) return format_number(change.value);
  const auto text = [&](double value) {
    return width < 1e-6 * std::abs(change.value) ? format_number(value)
                                                 : rounded_to(value, width, std::max(std::abs(value), width));
  };
  return text(change.value) + " [" + text(change.lower) + ", " + text(change.upper) + "]";
}

}  // namespace

std::vector<std::string> feature_table(const FeaturesResult& all) {
  std::vector<std::string> lines;
  std::size_t width = 12;
  const std::size_t listed = std::min(kMostListed, all.each.size());
  for (std::size_t i = 0; i < listed; ++i) width = std::max(width, characters(one_line(all.each[i].name)));
  width = std::min<std::size_t>(width, 48);
  std::string head = "  " + padded("feature", width) + "  " + padded("frequency", 10) + padded("in use", 10) +
                     padded("lambda 1", 24) + padded("trace / parameter", 26) + padded("norm", 12);
  for (const double rho : all.rho) head += padded("loss change, rho " + format_number(rho), 34);
  lines.push_back(head);
  for (std::size_t i = 0; i < listed; ++i) {
    const FeatureResult& f = all.each[i];
    const double share = all.frequency(f);
    std::string line = "  " + padded(one_line(f.name), width) + "  " +
                       padded(std::isnan(share) ? "not known" : format_number(share), 10) +
                       padded(format_count(f.in_use), 10) +
                       padded(as_known(f.largest.value, f.largest.standard_error), 24) +
                       padded(as_known(f.mean(), f.mean_half_width()), 26) + padded(format_number(f.norm), 12);
    for (const FeatureChange& change : f.changes) line += padded(as_range(change), 34);
    while (line.ends_with(' ')) line.pop_back();
    lines.push_back(line);
  }
  if (all.each.size() > listed)
    lines.push_back("  … and " + format_count(std::ssize(all.each) - static_cast<std::int64_t>(listed)) +
                    " more, in the result");
  return lines;
}

std::vector<std::string> feature_lines(const FeaturesResult& all) {
  std::vector<std::string> lines = feature_table(all);
  for (const FeatureCorrelation& c : all.correlations)
    lines.push_back("  " + padded(one_line(c.what), 66) + "  " +
                    (c.missing.empty() ? format_number(std::round(1000 * c.found.value) / 1000) + " [" +
                                             format_number(std::round(1000 * c.found.lower) / 1000) + ", " +
                                             format_number(std::round(1000 * c.found.upper) / 1000) + "] over " +
                                             format_count(c.found.count) + " features"
                                       : c.missing));
  return lines;
}

}  // namespace hesspect
