#include "hesspect/report/input_summary.h"

#include <algorithm>
#include <cmath>

#include "hesspect/core/text.h"
#include "hesspect/spectrum/trace.h"

namespace hesspect {
namespace {

constexpr double kShares[] = {0, 0.05, 0.25, 0.5, 0.75, 0.95, 1};
constexpr std::size_t kShownFragile = 5;

bool has_loss(const InputRow& row) { return !std::isnan(row.gradient_norm); }

/// Of values in ascending order: the number of rows below a quantile is binomial, and normal nearly.
Quantile quantile_of(const std::vector<double>& values, double share, double normal) {
  const auto n = static_cast<double>(values.size());
  const auto at = [&](double position) {
    const double last = n - 1;
    return values[static_cast<std::size_t>(std::clamp(position, 0.0, last))];
  };
  Quantile q;
  q.value = at(std::ceil(n * share) - 1);
  if (share <= 0 || share >= 1) return q;  // of the rows that there are; what others would add is not known
  const double spread = normal * std::sqrt(n * share * (1 - share));
  // Where the order statistic that bounds it does not exist, nothing does.
  const double lower = std::floor(n * share - spread) - 1, upper = std::ceil(n * share + spread);
  if (lower >= 0) q.lower = at(lower);
  if (upper <= n - 1) q.upper = at(upper);
  return q;
}

std::string quantile_interval(const Quantile& q) {
  return std::isnan(q.lower) || std::isnan(q.upper)
             ? ""
             : " [" + format_number(q.lower) + ", " + format_number(q.upper) + "]";
}

}  // namespace

void summarise(InputSharpness& sharpness, std::size_t fragile, double confidence) {
  std::vector<InputRow> rows;
  std::ranges::copy_if(sharpness.rows, std::back_inserter(rows), has_loss);
  sharpness.confidence = confidence;
  sharpness.quantiles.clear();
  const double normal = normal_quantile(confidence);
  const auto sorted = [&](auto&& value) {
    std::vector<double> values;
    for (const InputRow& row : rows) values.push_back(value(row));
    std::ranges::sort(values);
    return values;
  };
  if (!rows.empty()) {
    const auto gradients = sorted([](const InputRow& row) { return row.gradient_norm; });
    const auto largest = sorted([](const InputRow& row) { return row.largest; });
    const auto magnitudes = sorted([](const InputRow& row) { return std::abs(row.magnitude); });
    const auto changes = sorted([](const InputRow& row) { return row.change; });
    for (const double share : kShares)
      sharpness.quantiles.push_back({share, quantile_of(gradients, share, normal), quantile_of(largest, share, normal),
                                     quantile_of(magnitudes, share, normal), quantile_of(changes, share, normal)});
  }
  std::ranges::stable_sort(rows, std::greater<>(), [](const InputRow& row) { return std::abs(row.magnitude); });
  rows.resize(std::min(rows.size(), fragile));
  sharpness.fragile = std::move(rows);
}

std::vector<std::string> input_warnings(const InputSharpness& sharpness) {
  std::vector<std::string> warnings;
  const auto count = [&](auto&& test) { return format_count(std::ranges::count_if(sharpness.rows, test)); };
  const auto without = [](const InputRow& row) { return !has_loss(row); };
  const auto open = [](const InputRow& row) { return has_loss(row) && !row.converged; };
  if (std::ranges::any_of(sharpness.rows, without))
    warnings.push_back(count(without) + " rows have no loss, for all their targets are ignored or weigh nothing");
  if (std::ranges::any_of(sharpness.rows, open))
    warnings.push_back(count(open) + " rows' eigenvalues are not known to --rtol-inputs in " +
                       std::to_string(sharpness.most_products) +
                       " steps: raise --input-steps or --rtol-inputs; their bounds are in the result");
  return warnings;
}

std::vector<std::string> input_lines(const InputSharpness& sharpness) {
  std::vector<std::string> lines;
  const auto line = [&](const std::string& name, const std::string& text) {
    lines.push_back("  " + name + std::string(name.size() < 16 ? 16 - name.size() : 1, ' ') + one_line(text));
  };
  line("inputs", format_names(sharpness.variables) + ", " + format_count(sharpness.dimensions) + " numbers a row, " +
                     format_count(static_cast<std::int64_t>(sharpness.rows.size())) + " rows");
  const auto distribution = [&](const std::string& name, Quantile InputQuantiles::*what) {
    std::string text;
    for (const InputQuantiles& q : sharpness.quantiles) {
      if (q.share != 0.05 && q.share != 0.5 && q.share != 0.95 && q.share != 1) continue;
      text += (text.empty() ? "" : ", ") +
              (q.share == 1 ? std::string("largest") : format_number(100 * q.share) + " %") + ": " +
              format_number((q.*what).value) + quantile_interval(q.*what);
    }
    if (!text.empty()) line(name, text);
  };
  distribution("|eigenvalue|", &InputQuantiles::magnitude);
  distribution("lambda max", &InputQuantiles::largest);
  distribution("gradient norm", &InputQuantiles::gradient_norm);
  distribution("change", &InputQuantiles::change);
  std::string fragile;
  for (std::size_t i = 0; i < std::min(kShownFragile, sharpness.fragile.size()); ++i)
    fragile += (i > 0 ? ", " : "") + std::to_string(sharpness.fragile[i].row) + " (" +
               format_number(sharpness.fragile[i].magnitude) + ")";
  if (!fragile.empty()) line("most fragile", "rows " + fragile);
  return lines;
}

}  // namespace hesspect
