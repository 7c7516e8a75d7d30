#include "hesspect/report/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <functional>

#include "hesspect/core/text.h"
#include "hesspect/report/feature_summary.h"
#include "hesspect/report/input_summary.h"
#include "landscape_text.h"

namespace hesspect {
namespace {

constexpr int kColumns = 72;
constexpr int kMostDecades = 7;
constexpr std::size_t kMostLayers = 8;
constexpr std::size_t kMostBlocks = 60;

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

/// "  name            value", or nothing where there is no value.
void line(std::vector<std::string>& lines, const std::string& name, const std::string& value) {
  if (value.empty()) return;
  lines.push_back("  " + name + std::string(name.size() < 16 ? 16 - name.size() : 1, ' ') + one_line(value));
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

/// Nothing for results of versions that did not check.
std::string rows_text(const Diagnostics& d) {
  if (d.row_check.empty()) return "";
  const std::string units = d.unit_rows > 1 ? " in units of " + format_count(d.unit_rows) : "";
  return format_count(d.rows) + units + ", checked that the loss is a sum over them: " + d.row_check;
}

std::string basis_text(const Diagnostics& d) {
  if (d.basis_dtype.empty()) return "";
  return d.basis_dtype + " on the " + d.basis_memory + ", " + format_bytes(d.basis_bytes) + " a rank; " +
         std::to_string(d.kept_graphs) + " of " + std::to_string(d.micro_batches) +
         " micro-batches kept between products" +
         (d.cuda_graphs > 0 ? ", " + std::to_string(d.cuda_graphs) + " of them replayed as CUDA graphs" : "");
}

/// Nothing for results of versions that made none.
std::string forecast_text(const Diagnostics& d) {
  if (!std::isfinite(d.forecast_s)) return "";
  return format_bytes(d.forecast_memory_bytes) + " a rank (measured " + format_bytes(d.peak_memory_bytes) + "), " +
         format_duration(d.forecast_s) + " (" + format_duration(d.elapsed_s) + "), " +
         format_duration(d.forecast_product_s) + " a product (" +
         format_duration(d.product_s / static_cast<double>(std::max<std::int64_t>(d.products, 1))) + ")";
}

std::string short_number(double value, int digits = 2) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}

std::string percent(double share) { return format_number(100 * share) + " %"; }

/// " +- 0.1", or nothing where it is not known.
std::string plus_minus(double error) { return std::isfinite(error) ? " +- " + short_number(error) : ""; }

/// The most extreme first, as number 1.
void add_eigenvalues(std::vector<std::string>& lines, const std::string& which,
                     const std::vector<EigenEstimate>& list) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const EigenEstimate& e = list[i];
    char value[64];
    std::snprintf(value, sizeof value, "%3zu  % .10e", i + 1, e.value);
    lines.push_back(
        "  " + which + std::string(10 - which.size(), ' ') + value + plus_minus(e.error) + ", residual " +
        (std::isfinite(e.true_residual) ? short_number(e.true_residual) : "at most " + short_number(e.residual)) +
        (e.converged ? "" : ", not converged"));
  }
}

void add_eigenvalues(std::vector<std::string>& lines, const EigenResult& e) {
  add_eigenvalues(lines, "top", e.top);
  add_eigenvalues(lines, "bottom", {e.bottom.rbegin(), e.bottom.rend()});  // the smallest comes last
  add_eigenvalues(lines, "magnitude", e.magnitude);
  std::string how = e.method + ", " + format_count(e.steps) + " products";
  if (e.thick_restarts > 0)
    how += ", " + format_count(e.thick_restarts) + (e.thick_restarts == 1 ? " thick restart" : " thick restarts");
  if (e.exhausted) how += "; the Krylov space closed before there were as many";
  line(lines, "eigenvalues", how);
}

std::string trace_text(const TraceEstimate& t) {
  std::string text = format_number(t.value);
  if (std::isfinite(t.half_width))
    text += " +- " + short_number(t.half_width) + " at " + percent(t.confidence);
  else if (std::isfinite(t.standard_error))
    text += " +- " + short_number(t.standard_error) + " (standard error)";
  else
    text += " (its error is not known)";
  text += ", " + t.method + ", " + format_count(t.samples) + (t.samples == 1 ? " sample" : " samples");
  if (t.deflated > 0)
    text += ", " + format_number(t.captured) + " of it captured in " + format_count(t.deflated) + " dimensions";
  return text + (t.converged ? "" : ", not as good as asked for");
}

/// What other rows of the population would change.
std::string rows_text(const DataError& e) {
  std::string text =
      "standard errors by " + format_count(e.groups.count()) + " groups of rows: loss " + short_number(e.loss.error);
  if (std::isfinite(e.trace.error)) text += ", trace " + short_number(e.trace.error);
  if (!e.eigenvalues.empty() && std::isfinite(e.eigenvalues.front().interval.error))
    text += ", first eigenvalue " + short_number(e.eigenvalues.front().interval.error);
  return text;
}

void add_cumulative(std::vector<std::string>& lines, const CumulativeDensity& c) {
  const std::string how = c.band == "exact"
                              ? "all eigenvalues found"
                              : "Wasserstein-1 error at most " + short_number(c.w1) + ", " +
                                    percent(c.w1 / (c.range_hi - c.range_lo)) + " of the width, at " +
                                    percent(c.confidence) + " (sampling " + short_number(c.w1_sampling) +
                                    ", quadrature " + short_number(c.w1_quadrature) +
                                    (c.w1_precision > 0 ? ", precision " + short_number(c.w1_precision) : "") + ")";
  line(lines, "density",
       how + " on [" + format_number(c.range_lo) + ", " + format_number(c.range_hi) + "]" +
           (c.converged ? "" : ", not as good as asked for"));
  const auto share = [](const Estimate& e) {
    return format_number(100 * e.value) + plus_minus(100 * e.standard_error) + " %";
  };
  line(lines, "weight at zero", share(c.weight_at_zero) + " of the eigenvalues within " + short_number(c.zero_width));
  line(lines, "negative mass", share(c.negative_mass) + " of the eigenvalues below that");
  std::string moments;
  for (const Estimate& m : c.moments)
    moments += (moments.empty() ? "" : ", ") + format_number(m.value) + plus_minus(m.standard_error);
  line(lines, "moments", moments);
}

void add_layers(std::vector<std::string>& lines, std::vector<LayerEstimate> layers) {
  if (layers.empty()) return;
  const std::size_t shown = std::min(layers.size(), kMostLayers);
  std::partial_sort(layers.begin(), layers.begin() + static_cast<std::ptrdiff_t>(shown), layers.end(),
                    [](const auto& a, const auto& b) { return a.mean().value > b.mean().value; });
  line(lines, "layers",
       format_count(static_cast<std::int64_t>(layers.size())) + ", largest mean of the diagonal first");
  std::size_t width = 0;
  for (std::size_t i = 0; i < shown; ++i) width = std::max(width, layers[i].name.size());
  for (std::size_t i = 0; i < shown; ++i) {
    const LayerEstimate& l = layers[i];
    lines.push_back("    " + one_line(l.name) + std::string(width - l.name.size() + 2, ' ') +
                    format_number(l.mean().value) + plus_minus(l.mean().standard_error) + ", trace " +
                    format_number(l.trace.value) + plus_minus(l.trace.standard_error) + " of " + format_count(l.size) +
                    (l.size == 1 ? " entry" : " entries"));
  }
}

std::string distance_text(const InitialDistance& initial) {
  std::string text = format_number(initial.distance) + " from the initial weights";
  if (std::isfinite(initial.weighted_trace.value)) {
    text += "; traces of layers times squared distances " + format_number(initial.weighted_trace.value);
    if (std::isfinite(initial.half_width))
      text += " +- " + short_number(initial.half_width) + " at " + percent(initial.confidence);
  }
  return text;
}

std::string padded(const std::string& text, std::size_t width) {
  return text + std::string(text.size() < width ? width - text.size() : 1, ' ');
}

/// A number with its error, "" where it was not asked for.
std::string with_error(const Estimate& e) {
  return std::isfinite(e.value) ? short_number(e.value, 4) + plus_minus(e.standard_error) : "";
}

/// Of each block: parameters, extreme eigenvalues, trace, mean of the diagonal.
void add_block_table(std::vector<std::string>& lines, const std::vector<BlockResult>& blocks) {
  std::vector<std::array<std::string, 6>> rows{{"block", "parameters", "largest", "smallest", "trace", "trace/n"}};
  for (std::size_t i = 0; i < std::min(blocks.size(), kMostBlocks); ++i) {
    const BlockResult& b = blocks[i];
    rows.push_back({one_line(b.name), format_count(b.parameters), with_error(b.largest()), with_error(b.smallest()),
                    with_error(b.trace_estimate()), with_error(b.mean())});
  }
  std::array<std::size_t, 6> widths{};  // 0: nobody asked for it
  for (std::size_t c = 0; c < widths.size(); ++c) {
    if (std::ranges::all_of(rows.begin() + 1, rows.end(), [&](const auto& row) { return row[c].empty(); })) continue;
    for (const auto& row : rows) widths[c] = std::max(widths[c], row[c].size() + 2);
  }
  for (const auto& row : rows) {
    std::string text = "    ";
    for (std::size_t c = 0; c < row.size(); ++c)
      if (widths[c] > 0) text += padded(row[c], widths[c]);
    text.erase(text.find_last_not_of(' ') + 1);
    lines.push_back(text);
  }
  if (blocks.size() > kMostBlocks)
    lines.push_back("    … and " + std::to_string(blocks.size() - kMostBlocks) + " more, in the result");
}

void add_block_lines(std::vector<std::string>& lines, const BlocksResult& blocks) {
  std::int64_t products = 0;
  double product_s = 0;
  for (const BlockResult& b : blocks.each) {
    products += b.products;
    product_s += b.product_s;
  }
  line(lines, "blocks",
       format_count(std::ssize(blocks.each)) + (blocks.each.size() == 1 ? " block" : " blocks") +
           (blocks.rest > 0 ? ", " + format_count(blocks.rest) + " parameters in none of them" : "") + "; " +
           format_count(products) + " products in " + format_duration(product_s));
  add_block_table(lines, blocks.each);
  if (!blocks.off_block_obstacle.empty())
    line(lines, "off the blocks", "not known: " + blocks.off_block_obstacle);
  else
    line(lines, "off the blocks",
         format_number(100 * blocks.off_block_share.value) + plus_minus(100 * blocks.off_block_share.standard_error) +
             " % of the squared norm " + with_error(blocks.norm_sq) + " (standard errors)" +
             (blocks.rest > 0 ? ", what is in no block included" : ""));
  if (std::isfinite(blocks.js_mean))
    line(lines, "distance",
         "Jensen-Shannon, mean over pairs of blocks " + short_number(blocks.js_mean, 3) +
             plus_minus(blocks.js_mean_error) + " (standard error), kernel " + short_number(blocks.js_sigma));
}

/// By what they were taken for. Nothing for results of versions that did not count so.
std::string products_text(const ProductCount& c) {
  std::string text;
  const auto add = [&](std::int64_t count, const std::string& what) {
    if (count > 0) text += (text.empty() ? "" : ", ") + format_count(count) + " for " + what;
  };
  add(c.symmetry, "symmetry and trace");
  add(c.first_probe, "the first probe (eigenvalues, density, deflation)");
  add(c.density, "other probes (density, trace)");
  add(c.trace, "the trace alone");
  add(c.eigenvalues, "eigenvalues alone");
  add(c.residuals, "true residuals");
  add(c.surplus, "nothing (under way at the end)");
  return text;
}

std::string precision_text(const RunResult& r) {
  const PrecisionEffect& effect = r.diagnostics.precision;
  return "matrices multiplied in " + r.process.precision + ": a product is " + short_number(effect.error) +
         " from full precision, its Rayleigh quotient " + short_number(effect.rayleigh_error) +
         "; at the leading eigenvectors " + short_number(effect.leading_error) + " and " +
         short_number(effect.leading_rayleigh_error) + "; in " + short_number(effect.time) + " of the time";
}

std::string cost_text(const Diagnostics& d) {
  std::string text = format_count(d.products) + " products in " + format_duration(d.product_s);
  if (std::isfinite(d.cost_in_gradients)) text += " (" + format_number(d.cost_in_gradients) + " gradients each)";
  return text + ", " + format_duration(d.elapsed_s) + " in all, at most " + format_bytes(d.peak_memory_bytes) +
         " a rank";
}

/// The phases that took the most. Nothing of results that have none.
std::string phases_text(const PhaseSeconds& seconds) {
  if (!(seconds.total() > 0)) return "";
  std::array<Phase, kPhases> phases = all_phases();
  std::ranges::stable_sort(phases, std::greater<>(), [&](Phase phase) { return seconds[phase]; });
  std::string text;
  for (const Phase phase : phases) {
    const auto share = static_cast<int>(std::lround(100 * seconds[phase] / seconds.total()));
    if (share == 0) continue;
    std::string name = name_of(phase);
    std::ranges::replace(name, '_', ' ');
    text += (text.empty() ? "" : ", ") + name + " " + std::to_string(share) + " %";
  }
  if (seconds.matrix_products > 0)
    text += "; matrix products " +
            std::to_string(static_cast<int>(std::lround(100 * seconds.matrix_products / seconds.total()))) + " %";
  return text;
}

}  // namespace

std::string plot_density(const Density& d) {
  if (d.lambda.size() < 2 || !(d.lambda.back() > d.lambda.front())) return "";
  if (!std::isfinite(d.lambda.back() - d.lambda.front())) return "";
  const auto columns = column_means(d);
  const double most = *std::max_element(columns.begin(), columns.end());
  if (!(most > 0) || !std::isfinite(most)) return "";
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
  const std::string low = format_number(d.lambda.front()), high = format_number(d.lambda.back());
  text += std::string(9, ' ') + low + pad_left(high, kColumns > low.size() ? kColumns - low.size() : 0) + "\n";
  return text;
}

std::vector<std::string> findings(const RunResult& r) {
  const Diagnostics& d = r.diagnostics;
  if (r.inputs) return input_lines(*r.inputs);
  std::vector<std::string> lines;
  line(lines, "loss",
       format_number(d.loss) + ", gradient norm " + format_number(d.gradient_norm) + ", " + format_count(d.parameters) +
           " parameters" +
           (d.model_parameters > d.parameters
                ? " of the model's " + format_count(d.model_parameters) + ", the others held fixed"
                : "") +
           (d.parameters_in_use < d.parameters ? ", " + format_count(d.parameters_in_use) + " of them in use" : ""));
  if (r.eigenvalues) add_eigenvalues(lines, *r.eigenvalues);
  if (r.landscape)
    for (const auto& [name, text] : landscape_lines(*r.landscape)) line(lines, name, text);
  if (r.sharpness)
    for (const auto& [name, text] : sharpness_lines(*r.sharpness)) line(lines, name, text);
  if (r.quality)
    for (const auto& [name, text] : quality_lines(*r.quality)) line(lines, name, text);
  if (r.trace) line(lines, "trace", trace_text(*r.trace));
  if (r.data_error) line(lines, "over other rows", rows_text(*r.data_error));
  if (r.cumulative) add_cumulative(lines, *r.cumulative);
  if (r.density) line(lines, "kernel", "Gaussian, standard deviation " + format_number(r.density->sigma));
  add_layers(lines, r.layers);
  if (r.initial) line(lines, "moved", distance_text(*r.initial));
  if (r.blocks) add_block_lines(lines, *r.blocks);
  if (r.features)
    for (const std::string& one : feature_lines(*r.features)) lines.push_back(one);
  if (r.process.precision != "fp32") line(lines, "precision", precision_text(r));
  line(lines, "products", products_text(r.counts));
  line(lines, "cost", cost_text(d));
  line(lines, "time", phases_text(d.phases));
  return lines;
}

std::string page(const RunResult& r) {
  const ProcessInfo& p = r.process;
  std::vector<std::string> lines{"result of hesspect " + one_line(p.command) + " " + one_line(p.version)};
  line(lines, "written", p.end_time);
  line(lines, "model", files_text(p.model));
  line(lines, "weights", p.weights.empty() ? "those in the model" : files_text(p.weights));
  for (const auto& change : p.weights_changes) line(lines, "names", change);
  if (!p.weights_not_covered.empty()) line(lines, "not covered", format_names(p.weights_not_covered));
  line(lines, "data", files_text(p.data));
  line(lines, "matrix",
       p.curvature + (r.inputs ? " in the inputs" : "") + " of the " + (p.reduction == "sum" ? "summed " : "") +
           "loss " + p.loss_kind + ", " + p.dtype + " on " + p.device);
  line(lines, "ranks", ranks_text(p, r.diagnostics));
  line(lines, "rows", rows_text(r.diagnostics));
  line(lines, "basis", basis_text(r.diagnostics));
  line(lines, "forecast", forecast_text(r.diagnostics));
  for (const auto& warning : r.warnings) line(lines, "warning", warning);
  for (const std::string& finding : findings(r)) lines.push_back(finding);
  std::string text;
  for (const std::string& one : lines) text += one + "\n";
  if (r.density) text += "\nspectral density over the eigenvalues\n" + plot_density(*r.density);
  return text;
}

}  // namespace hesspect
