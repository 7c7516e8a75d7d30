#include <algorithm>
#include <cmath>

#include "chart.h"
#include "hesspect/core/text.h"
#include "result_charts.h"

namespace hesspect {

std::string feature_chart(const RunResult& r) {
  if (!r.features) return "";
  const FeaturesResult& all = *r.features;
  double left = HUGE_VAL, right = 0, low = HUGE_VAL, high = 0;
  const auto is_shown = [&](const FeatureResult& f) {
    const double x = all.frequency(f), y = f.largest.value;
    return std::isfinite(x) && std::isfinite(y) && x > 0 && y > 0;
  };
  for (const FeatureResult& f : all.each) {
    if (!is_shown(f)) continue;
    left = std::min(left, all.frequency(f)), right = std::max(right, all.frequency(f));
    low = std::min(low, f.largest.value), high = std::max(high, f.largest.value);
  }
  if (!(right > 0)) return "";
  Chart chart("Largest eigenvalue of features over their frequency", Axis::log(left / 1.5, 1.5 * right),
              Axis::log(low / 2, 2 * high), "share of the data's rows that touch it",
              "λ₁ of its block  [loss/parameter²]");
  bool has_nested = false;
  for (const FeatureResult& f : all.each) {
    if (!is_shown(f)) continue;
    const double error = f.largest.standard_error, bottom = f.largest.value - error;
    has_nested = has_nested || f.nested;
    chart.mark(all.frequency(f), f.largest.value, bottom > 0 ? bottom : low / 2, f.largest.value + error,
               f.nested ? "other" : "curve",
               one_line(f.name) + ": λ₁ " + format_number(f.largest.value) + ", in " +
                   format_number(100 * all.frequency(f)) + " % of the rows");
  }
  chart.key("curve", "features");
  if (has_nested) chart.key("other", "features that hold smaller ones");
  return chart.svg();
}

}  // namespace hesspect
