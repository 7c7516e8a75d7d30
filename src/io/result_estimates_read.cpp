#include <cmath>
#include <limits>

#include "hesspect/core/errors.h"
#include "result_estimates.h"

namespace hesspect {
namespace {

using hdf5::ReadFile;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<double> column(const ReadFile& file, const std::string& name, std::size_t length) {
  auto values = file.doubles(name);
  if (values.size() != length)
    throw InputError(name + " has " + std::to_string(values.size()) + " entries, not " + std::to_string(length) +
                     ": the result is broken");
  return values;
}

/// The grid of a density: whoever draws or integrates it goes along it.
std::vector<double> grid(const ReadFile& file, const std::string& name) {
  auto values = file.doubles(name);
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]) || (i > 0 && values[i] < values[i - 1]))
      throw InputError(name + " does not ascend at entry " + std::to_string(i) + ": the result is broken");
  return values;
}

Estimate estimate(const ReadFile& file, const std::string& name) {
  return {file.real(name), file.real(name + "_error")};
}

Density read_density(const ReadFile& file) {
  Density d;
  d.lambda = grid(file, "/entry/density/lambda");
  d.density = column(file, "/entry/density/density", d.lambda.size());
  d.density_errors = column(file, "/entry/density/density_errors", d.lambda.size());
  d.sigma = file.real("/entry/density/sigma");
  return d;
}

CumulativeDensity read_cumulative(const ReadFile& file) {
  const std::string g = "/entry/cumulative/";
  CumulativeDensity c;
  c.lambda = grid(file, g + "lambda");
  c.cumulative = column(file, g + "cumulative", c.lambda.size());
  c.lower = column(file, g + "cumulative_lower", c.lambda.size());
  c.upper = column(file, g + "cumulative_upper", c.lambda.size());
  c.confidence = file.real(g + "confidence");
  c.band = file.text(g + "band");
  c.probes = file.integer(g + "probes");
  c.converged = file.integer(g + "converged") != 0;
  c.w1 = file.real(g + "w1");
  c.w1_sampling = file.real(g + "w1_sampling");
  c.w1_quadrature = file.real(g + "w1_quadrature");
  const auto range = column(file, g + "range", 2);
  c.range_lo = range[0];
  c.range_hi = range[1];
  c.exact_points = file.real(g + "exact_points");
  c.zero_width = file.real(g + "zero_width");
  c.weight_at_zero = estimate(file, g + "weight_at_zero");
  c.negative_mass = estimate(file, g + "negative_mass");
  const auto moments = file.doubles(g + "moments");
  const auto errors = column(file, g + "moments_error", moments.size());
  for (std::size_t k = 0; k < moments.size(); ++k) c.moments.push_back({moments[k], errors[k]});
  return c;
}

EigenResult read_eigenvalues(const ReadFile& file) {
  const std::string g = "/entry/eigenvalues/";
  EigenResult e;
  const bool first_layout = !file.has(g + "which");  // values and residuals alone, top and bottom
  const auto value = file.doubles(g + "eigenvalue");
  const auto residual = column(file, g + "residual", value.size());
  const auto measured = first_layout ? std::vector<double>(value.size(), EigenEstimate::kNotMeasured)
                                     : column(file, g + "true_residual", value.size());
  const auto error = first_layout ? residual : column(file, g + "error", value.size());
  const auto converged = file.integers(g + "converged");
  const auto count = [&](const char* name) { return static_cast<std::size_t>(file.integer(g + name)); };
  const std::size_t top = count("n_top"), bottom = count("n_bottom");
  if (converged.size() != value.size() || top > value.size() || bottom > value.size() - top)
    throw InputError(g + " has parts of different lengths");
  for (std::size_t i = 0; i < value.size(); ++i)
    (i < top            ? e.top
     : i < top + bottom ? e.bottom
                        : e.magnitude)
        .push_back({value[i], residual[i], measured[i], error[i], converged[i] != 0});
  e.steps = file.integer(g + "steps");
  e.converged = file.integer(g + "all_converged") != 0;
  e.exhausted = file.integer(g + "exhausted") != 0;
  if (first_layout) return e;
  e.residual_products = file.integer(g + "residual_products");
  e.thick_restarts = file.integer(g + "thick_restarts");
  e.method = file.text(g + "method");
  return e;
}

TraceEstimate read_trace(const ReadFile& file) {
  const std::string g = "/entry/trace/";
  TraceEstimate t;
  t.value = file.real(g + "value");
  t.standard_error = file.real(g + "stderr");
  t.samples = file.integer(g + "samples");
  if (!file.has(g + "half_width")) {  // the first layout: Hutchinson's, 0 where the error was not known
    t.method = "hutchinson";
    t.half_width = kNaN;
    if (t.samples < 2) t.standard_error = kNaN;
    return t;
  }
  t.half_width = file.real(g + "half_width");
  t.confidence = file.real(g + "confidence");
  t.products = file.integer(g + "products");
  t.captured = file.real(g + "captured");
  t.deflated = file.integer(g + "deflated");
  t.method = file.text(g + "method");
  t.converged = file.integer(g + "converged") != 0;
  return t;
}

std::vector<DeflatedSample> read_samples(const ReadFile& file, double captured) {
  const std::string g = "/entry/trace/";
  const auto sample = file.doubles(g + "sample");
  const auto norm_sq = column(file, g + "sample_product_norm_sq", sample.size());
  const auto probe = file.integers(g + "sample_probe");
  if (probe.size() != sample.size()) throw InputError(g + " has samples of different numbers");
  std::vector<DeflatedSample> samples;
  for (std::size_t i = 0; i < sample.size(); ++i) samples.push_back({probe[i], sample[i] - captured, norm_sq[i], {}});
  return samples;
}

std::vector<LayerEstimate> read_layers(const ReadFile& file) {
  const std::string g = "/entry/layers/";
  const auto name = file.strings(g + "name");
  const auto size = file.integers(g + "size");
  const auto trace = column(file, g + "trace", name.size()), error = column(file, g + "trace_error", name.size());
  if (size.size() != name.size()) throw InputError(g + " has parts of different lengths");
  std::vector<LayerEstimate> layers;
  for (std::size_t i = 0; i < name.size(); ++i) layers.push_back({name[i], size[i], {trace[i], error[i]}});
  return layers;
}

std::vector<ProbeQuadrature> read_quadrature(const ReadFile& file) {
  const std::string g = "/entry/quadrature/";
  const auto dims = file.dims(g + "alpha");
  if (dims.size() != 2) throw InputError(g + "alpha is not of the shape [probes, steps]");
  const std::size_t probes = dims[0], steps = dims[1];
  if (steps != 0 && probes > std::numeric_limits<std::size_t>::max() / steps)
    throw InputError(g + "alpha has an impossible shape");
  const auto alpha = column(file, g + "alpha", probes * steps), beta = column(file, g + "beta", probes * steps);
  const auto ritz = column(file, g + "ritz", probes * steps), weight = column(file, g + "weight", probes * steps);
  const auto norm_sq = column(file, g + "norm_sq", probes), loss = column(file, g + "orthogonality_loss", probes);
  const auto number = file.integers(g + "probe"), taken = file.integers(g + "steps_taken");
  const auto breakdown = file.integers(g + "breakdown");
  if (number.size() != probes || taken.size() != probes || breakdown.size() != probes)
    throw InputError(g + " has parts of different lengths");
  std::vector<ProbeQuadrature> all(probes);
  for (std::size_t p = 0; p < probes; ++p) {
    if (taken[p] < 1 || static_cast<std::size_t>(taken[p]) > steps) throw InputError(g + "steps_taken is out of range");
    const auto row = [&](const std::vector<double>& table, std::int64_t count) {
      const auto begin = table.begin() + static_cast<std::ptrdiff_t>(p * steps);
      return std::vector<double>(begin, begin + count);
    };
    ProbeQuadrature& q = all[p];
    q.probe = number[p];
    q.alpha = row(alpha, taken[p]);
    q.beta = row(beta, taken[p] - 1);
    q.beta_last = beta[p * steps + static_cast<std::size_t>(taken[p]) - 1];
    q.ritz = row(ritz, taken[p]);
    q.weight = row(weight, taken[p]);
    for (std::size_t i = 0; i < q.ritz.size(); ++i)
      if (!std::isfinite(q.ritz[i]) || !std::isfinite(q.weight[i]))
        throw InputError(g + "ritz and weight hold a value that is not finite: the result is broken");
    q.norm_sq = norm_sq[p];
    q.breakdown = breakdown[p] != 0;
    q.orthogonality_loss = loss[p];
  }
  return all;
}

}  // namespace

void read_estimates(const ReadFile& file, RunResult& r) {
  if (file.has("/entry/density")) r.density = read_density(file);
  if (file.has("/entry/cumulative")) r.cumulative = read_cumulative(file);
  if (file.has("/entry/eigenvalues")) r.eigenvalues = read_eigenvalues(file);
  if (file.has("/entry/trace")) r.trace = read_trace(file);
  if (r.trace && file.has("/entry/trace/sample")) r.samples = read_samples(file, r.trace->captured);
  if (file.has("/entry/layers")) r.layers = read_layers(file);
  if (file.has("/entry/quadrature")) r.quadrature = read_quadrature(file);
}

}  // namespace hesspect
