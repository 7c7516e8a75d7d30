#include <algorithm>
#include <cmath>

#include "hesspect/core/text.h"
#include "inspect.h"
#include "summary.h"

namespace hesspect {
namespace {

constexpr int kColumns = 72;
constexpr int kMostDecades = 7;

/// Mass of a piecewise linear density between a and b, over b − a.
std::vector<double> column_means(const Density& d) {
  const double low = d.lambda.front(), width = (d.lambda.back() - low) / kColumns;
  std::vector<double> mass(kColumns, 0);
  for (std::size_t i = 0; i + 1 < d.lambda.size(); ++i) {
    const double a = d.lambda[i], b = d.lambda[i + 1];
    const auto at = [&](double x) { return d.density[i] + (d.density[i + 1] - d.density[i]) * (x - a) / (b - a); };
    for (double x = a; x < b;) {  // cut at the columns' edges
      int column = std::clamp(static_cast<int>((x - low) / width), 0, kColumns - 1);
      if (column + 1 < kColumns && !(low + (column + 1) * width > x)) ++column;  // x is on the edge, but for rounding
      double end = std::min(b, low + (column + 1) * width);
      if (!(end > x)) end = b;
      mass[static_cast<std::size_t>(column)] += 0.5 * (at(x) + at(end)) * (end - x);
      x = end;
    }
  }
  for (double& m : mass) m /= width;
  return mass;
}

std::string pad_left(std::string text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

void line(std::string& text, const std::string& name, const std::string& value) {
  if (value.empty()) return;
  text += "  " + name + std::string(name.size() < 16 ? 16 - name.size() : 1, ' ') + one_line(value) + "\n";
}

std::string files_text(const std::vector<SourceFile>& files) {
  std::vector<std::string> parts;
  for (const auto& f : files)
    parts.push_back(f.path + (f.sha256.empty() ? "" : " (sha256 " + f.sha256.substr(0, 12) + "...)"));
  return parts.empty() ? "" : format_names(parts);
}

std::string ranks_text(const ProcessInfo& p, const Diagnostics& d) {
  std::string text = std::to_string(p.ranks);
  if (d.groups > 1) text += " in " + std::to_string(d.groups) + " groups of " + std::to_string(d.data_ranks);
  if (d.lock_step > 1) text += ", " + std::to_string(d.lock_step) + " probes at a time";
  if (d.starts > 1) text += ", resumed " + std::to_string(d.starts - 1) + (d.starts == 2 ? " time" : " times");
  return text + ", seed " + std::to_string(p.seed);
}

std::string basis_text(const Diagnostics& d) {
  if (d.basis_dtype.empty()) return "";
  return d.basis_dtype + " on the " + d.basis_memory + ", " + format_bytes(d.basis_bytes) + " a rank; " +
         std::to_string(d.kept_graphs) + " of " + std::to_string(d.micro_batches) + " micro-batches keep their graphs";
}

/// Nothing for results of versions that made none.
std::string forecast_text(const Diagnostics& d) {
  if (!std::isfinite(d.forecast_s)) return "";
  return format_bytes(d.forecast_memory_bytes) + " a rank (measured " + format_bytes(d.peak_memory_bytes) + "), " +
         format_duration(d.forecast_s) + " (" + format_duration(d.elapsed_s) + "), " +
         format_duration(d.forecast_product_s) + " a product (" +
         format_duration(d.product_s / static_cast<double>(std::max<std::int64_t>(d.products, 1))) + ")";
}

}  // namespace

std::string plot_density(const Density& d) {
  if (d.lambda.size() < 2 || !(d.lambda.back() > d.lambda.front())) return "";
  const auto columns = column_means(d);
  const double most = *std::max_element(columns.begin(), columns.end());
  if (!(most > 0)) return "";
  double least = most;
  for (double c : columns)
    if (c > 0) least = std::min(least, c);
  const int top = static_cast<int>(std::floor(std::log10(most)));
  const int bottom = std::max(static_cast<int>(std::floor(std::log10(least))), top - kMostDecades + 1);
  std::string text;
  for (int decade = top; decade >= bottom; --decade) {
    // Half a decade a row: '#' is the whole of it, '.' its first half.
    text += pad_left("1e" + std::to_string(decade), 7) + " |";
    for (double c : columns) {
      const double level = c > 0 ? std::log10(c) - decade : -1;
      text += level >= 0.5 ? '#' : level >= 0 ? '.' : ' ';
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += "\n";
  }
  text += std::string(8, ' ') + "+" + std::string(kColumns, '-') + "\n";
  const std::string low = number(d.lambda.front()), high = number(d.lambda.back());
  text += std::string(9, ' ') + low + pad_left(high, kColumns > low.size() ? kColumns - low.size() : 0) + "\n";
  return text;
}

std::string inspect_result(const RunResult& r) {
  const ProcessInfo& p = r.process;
  std::string text = "result of hesspect " + one_line(p.command) + " " + one_line(p.version) + "\n";
  line(text, "written", p.end_time);
  line(text, "model", files_text(p.model));
  line(text, "weights", p.weights.empty() ? "those in the model" : files_text(p.weights));
  line(text, "data", files_text(p.data));
  line(text, "matrix", p.curvature + " of the loss " + p.loss_kind + ", " + p.dtype + " on " + p.device);
  line(text, "ranks", ranks_text(p, r.diagnostics));
  line(text, "basis", basis_text(r.diagnostics));
  line(text, "forecast", forecast_text(r.diagnostics));
  for (const auto& warning : r.warnings) line(text, "warning", warning);
  for (const auto& l : summary(r)) text += l + "\n";
  if (r.density) text += "\nspectral density over the eigenvalues\n" + plot_density(*r.density);
  return text;
}

}  // namespace hesspect
