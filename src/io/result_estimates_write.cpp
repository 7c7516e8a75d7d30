#include <algorithm>
#include <cmath>
#include <limits>

#include "result_estimates.h"
#include "result_schema.h"

namespace hesspect {
namespace {

using hdf5::attach_scale;
using hdf5::Group;
using hdf5::make_group;
using hdf5::put;
using hdf5::put_attribute;
using schema::kCurvature;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<std::int64_t> counting(std::size_t count) {
  std::vector<std::int64_t> numbers(count);
  for (std::size_t i = 0; i < count; ++i) numbers[i] = static_cast<std::int64_t>(i);
  return numbers;
}

/// A field of each entry.
template <class Entry, class Get>
std::vector<double> column(const std::vector<Entry>& entries, Get get) {
  std::vector<double> values;
  for (const auto& entry : entries) values.push_back(get(entry));
  return values;
}

/// The attributes by which viewers find what to plot over what.
void mark_plot(const Group& group, const std::string& signal, const std::vector<std::string>& axes,
               const std::string& title) {
  put_attribute(group.get(), "signal", signal);
  put_attribute(group.get(), "axes", axes);
  for (std::size_t i = 0; i < axes.size(); ++i)
    put_attribute(group.get(), axes[i] + "_indices", static_cast<std::int64_t>(i));
  put(group.get(), "title", title, {"Title of the plot", ""});
}

/// A number with its standard error.
void put_estimate(hid_t group, const std::string& name, const Estimate& e, const std::string& what,
                  const std::string& units) {
  put(group, name, e.value, {what, units});
  put(group, name + "_error", e.standard_error, {what + ": standard error over probes; NaN: not known", units});
}

void write_density(hid_t entry, const Density& d, const std::string& what) {
  const Group group = make_group(entry, "density", "NXdata");
  mark_plot(group, "density", {"lambda"}, "Spectral density of the " + what);
  put_attribute(group.get(), "SILX_style", R"({"axes_scale_types": ["linear"], "signal_scale_type": "log"})");
  put(group.get(), "lambda", d.lambda, {d.lambda.size()}, {"Eigenvalue", kCurvature});
  put(group.get(), "density", d.density, {d.density.size()}, {"Spectral density", schema::kDensity});
  put(group.get(), "density_errors", d.density_errors, {d.density_errors.size()},
      {"Standard error of the density over probes", schema::kDensity});
  put(group.get(), "sigma", d.sigma, {"Standard deviation of the Gaussian kernel", kCurvature});
  attach_scale(group.get(), "lambda", {"density", "density_errors"}, 0);
}

void write_cumulative(hid_t entry, const CumulativeDensity& c, const std::string& what) {
  const Group group = make_group(entry, "cumulative", "NXdata");
  const hid_t g = group.get();
  mark_plot(group, "cumulative", {"lambda"}, "Cumulative spectral density of the " + what);
  // The band is not symmetric: viewers draw its edges as further curves.
  put_attribute(g, "auxiliary_signals", std::vector<std::string>{"cumulative_lower", "cumulative_upper"});
  const std::vector<hsize_t> dims{c.lambda.size()};
  put(g, "lambda", c.lambda, dims, {"Eigenvalue", kCurvature});
  put(g, "cumulative", c.cumulative, dims, {"Share of the eigenvalues up to lambda, lambda included", ""});
  put(g, "cumulative_lower", c.lower, dims, {"Lower edge of the cumulative density's band", ""});
  put(g, "cumulative_upper", c.upper, dims, {"Upper edge of the cumulative density's band", ""});
  attach_scale(g, "lambda", {"cumulative", "cumulative_lower", "cumulative_upper"}, 0);
  put(g, "confidence", c.confidence, {"Probability that band and bound claim", ""});
  put(g, "band", c.band, {"What the band is from: jackknife over probes, a priori, or exact", ""});
  put(g, "probes", c.probes, {"Probes", ""});
  put(g, "converged", std::vector<bool>{c.converged}, {}, {"1 where w1 is what was asked for", ""});
  put(g, "w1", c.w1, {"Bound of the Wasserstein-1 distance to the true density", kCurvature});
  put(g, "w1_sampling", c.w1_sampling, {"Part of the bound that comes from the number of probes", kCurvature});
  put(g, "w1_quadrature", c.w1_quadrature, {"Part of the bound that comes from the number of steps", kCurvature});
  put(g, "range", std::vector<double>{c.range_lo, c.range_hi}, {2},
      {"Where the spectrum lies: the outermost Ritz values and their bounds", kCurvature});
  put(g, "exact_points", c.exact_points, {"Eigenvalues taken out as points of their own weight, mean over probes", ""});
  put(g, "zero_width", c.zero_width, {"|lambda| up to which an eigenvalue counts as zero", kCurvature});
  put_estimate(g, "weight_at_zero", c.weight_at_zero, "Share of the eigenvalues that are zero", "");
  put_estimate(g, "negative_mass", c.negative_mass, "Share of the eigenvalues below zero", "");
  const std::vector<hsize_t> moments{c.moments.size()};
  const std::string powers = "(" + std::string(kCurvature) + ")^k";
  put(g, "moments", column(c.moments, [](const Estimate& e) { return e.value; }), moments,
      {"Mean of lambda^k over the eigenvalues, k = 1, 2, ...", powers});
  put(g, "moments_error", column(c.moments, [](const Estimate& e) { return e.standard_error; }), moments,
      {"Standard error of the moments over probes; NaN: not known", powers});
}

void write_eigenvalues(hid_t entry, const EigenResult& e, const std::string& what) {
  const Group group = make_group(entry, "eigenvalues", "NXdata");
  const hid_t g = group.get();
  mark_plot(group, "eigenvalue", {"index"}, "Extreme eigenvalues of the " + what);
  std::vector<EigenEstimate> all;
  std::vector<std::string> which;
  const auto add = [&](const std::vector<EigenEstimate>& list, const char* name) {
    all.insert(all.end(), list.begin(), list.end());
    which.insert(which.end(), list.size(), name);
  };
  add(e.top, "top");
  add(e.bottom, "bottom");
  add(e.magnitude, "magnitude");
  std::vector<bool> converged;
  for (const auto& one : all) converged.push_back(one.converged);
  const std::vector<hsize_t> dims{all.size()};
  put(g, "index", counting(all.size()), dims, {"Position in the list", ""});
  put(g, "eigenvalue", column(all, [](auto& one) { return one.value; }), dims,
      {"Eigenvalues: the largest first, then the smallest ones, largest of them first; or largest magnitude first",
       kCurvature});
  put(g, "which", which, {"What the eigenvalue is one of: top, bottom or magnitude", ""});
  put(g, "residual", column(all, [](auto& one) { return one.residual; }), dims,
      {"Bound of the norm of H y - theta y for the unit Ritz vector y, rounding included", kCurvature});
  put(g, "true_residual", column(all, [](auto& one) { return one.true_residual; }), dims,
      {"Norm of H y - theta y by a product of its own; NaN: not measured", kCurvature});
  put(g, "error", column(all, [](auto& one) { return one.error; }), dims,
      {"Bound of the eigenvalue's error: the residual, or residual^2 / gap where it stands apart", kCurvature});
  put(g, "converged", converged, dims, {"1 where the residual met the tolerance", ""});
  attach_scale(g, "index", {"eigenvalue", "which", "residual", "true_residual", "error", "converged"}, 0);
  put(g, "n_top", static_cast<std::int64_t>(e.top.size()), {"How many of them are the largest", ""});
  put(g, "n_bottom", static_cast<std::int64_t>(e.bottom.size()), {"How many of them are the smallest", ""});
  put(g, "n_magnitude", static_cast<std::int64_t>(e.magnitude.size()),
      {"How many of them are those of largest magnitude", ""});
  put(g, "method", e.method, {"Method: lanczos, block lanczos or power", ""});
  put(g, "steps", e.steps, {"Products that served them, those of true residuals not included", ""});
  put(g, "residual_products", e.residual_products, {"Products for true residuals", ""});
  put(g, "thick_restarts", e.thick_restarts, {"Thick restarts of the Lanczos run", ""});
  put(g, "all_converged", std::vector<bool>{e.converged}, {}, {"1 where all of them converged", ""});
  put(g, "exhausted", std::vector<bool>{e.exhausted}, {},
      {"1 where the Krylov space closed before as many were found", ""});
}

void write_trace(hid_t entry, const TraceEstimate& t, const std::vector<DeflatedSample>& samples) {
  const Group group = make_group(entry, "trace", "NXcollection");
  const hid_t g = group.get();
  put(g, "value", t.value, {"Trace", kCurvature});
  put(g, "stderr", t.standard_error, {"Standard error of the trace; NaN: not known", kCurvature});
  put(g, "half_width", t.half_width, {"Half width of the trace's confidence interval; NaN: not known", kCurvature});
  put(g, "confidence", t.confidence, {"Probability that the interval claims", ""});
  put(g, "samples", t.samples, {"Random vectors that the trace is from", ""});
  put(g, "products", t.products, {"Products that were taken for the trace alone", ""});
  put(g, "captured", t.captured, {"Part of the trace that the deflated space has, exactly", kCurvature});
  put(g, "deflated", t.deflated, {"Dimensions of the deflated space", ""});
  put(g, "method", t.method, {"Method: deflated, hutchinson, hutch++ or xtrace", ""});
  put(g, "converged", std::vector<bool>{t.converged}, {}, {"1 where the half width is what was asked for", ""});
  if (samples.empty()) return;
  std::vector<std::int64_t> probe;
  for (const auto& s : samples) probe.push_back(s.probe);
  const std::vector<hsize_t> dims{samples.size()};
  put(g, "sample", column(samples, [&](auto& s) { return t.captured + s.quadratic_form; }), dims,
      {"What each random vector says the trace is: the captured part and z'Hz of the rest; their mean is the trace",
       kCurvature});
  put(g, "sample_probe", probe, dims, {"Number of each sample's random vector", ""});
  put(g, "sample_product_norm_sq", column(samples, [](auto& s) { return s.product_norm_sq; }), dims,
      {"Squared norm of each sample's product, the captured part taken out", schema::kCurvatureSq});
  attach_scale(g, "sample_probe", {"sample", "sample_product_norm_sq"}, 0);
}

void write_layers(hid_t entry, const std::vector<LayerEstimate>& layers, const std::string& what) {
  const Group group = make_group(entry, "layers", "NXdata");
  const hid_t g = group.get();
  mark_plot(group, "mean", {"index"}, "Mean of the diagonal of the " + what + ", by parameter tensor");
  std::vector<std::string> name;
  std::vector<std::int64_t> size;
  for (const auto& layer : layers) {
    name.push_back(layer.name);
    size.push_back(layer.size);
  }
  const std::vector<hsize_t> dims{layers.size()};
  put(g, "index", counting(layers.size()), dims, {"Position in the model", ""});
  put(g, "name", name, {"Parameter tensor", ""});
  put(g, "size", size, dims, {"Entries of the tensor", ""});
  put(g, "trace", column(layers, [](auto& l) { return l.trace.value; }), dims,
      {"Trace of the tensor's diagonal block", kCurvature});
  put(g, "trace_error", column(layers, [](auto& l) { return l.trace.standard_error; }), dims,
      {"Standard error of that trace; NaN: not known", kCurvature});
  put(g, "mean", column(layers, [](auto& l) { return l.mean().value; }), dims,
      {"Mean of the diagonal over the tensor's entries", kCurvature});
  put(g, "mean_error", column(layers, [](auto& l) { return l.mean().standard_error; }), dims,
      {"Standard error of that mean; NaN: not known", kCurvature});
  attach_scale(g, "index", {"name", "size", "trace", "trace_error", "mean", "mean_error"}, 0);
}

/// [probes, steps], NaN where a probe took fewer steps.
template <class Row>
std::vector<double> padded(const std::vector<ProbeQuadrature>& probes, std::size_t steps, Row row) {
  std::vector<double> table(probes.size() * steps, kNaN);
  for (std::size_t p = 0; p < probes.size(); ++p) {
    const std::vector<double> values = row(probes[p]);
    std::copy_n(values.begin(), std::min(values.size(), steps), table.begin() + static_cast<std::ptrdiff_t>(p * steps));
  }
  return table;
}

void write_quadrature(hid_t entry, const std::vector<ProbeQuadrature>& probes) {
  const Group group = make_group(entry, "quadrature", "NXdata");
  mark_plot(group, "ritz", {"probe", "step"}, "Gauss quadrature of each probe");
  std::size_t steps = 0;
  for (const auto& p : probes) steps = std::max(steps, p.alpha.size());
  const std::vector<hsize_t> table{probes.size(), steps};
  const std::vector<hsize_t> column{probes.size()};
  put(group.get(), "alpha", padded(probes, steps, [](auto& p) { return p.alpha; }), table,
      {"Diagonal of the tridiagonal matrix", kCurvature});
  put(group.get(), "beta",
      padded(probes, steps,
             [](auto& p) {
               std::vector<double> beta = p.beta;
               beta.push_back(p.beta_last);
               return beta;
             }),
      table, {"Off-diagonal of the tridiagonal matrix; the last of a probe is the norm of what was left", kCurvature});
  put(group.get(), "ritz", padded(probes, steps, [](auto& p) { return p.ritz; }), table,
      {"Nodes of the quadrature (Ritz values), ascending", kCurvature});
  put(group.get(), "weight", padded(probes, steps, [](auto& p) { return p.weight; }), table,
      {"Weights of the quadrature; a probe's sum to 1", ""});
  std::vector<std::int64_t> number, steps_taken;
  std::vector<double> norm_sq, orthogonality;
  std::vector<bool> breakdown;
  for (const auto& p : probes) {
    number.push_back(p.probe);
    steps_taken.push_back(static_cast<std::int64_t>(p.alpha.size()));
    norm_sq.push_back(p.norm_sq);
    orthogonality.push_back(p.orthogonality_loss);
    breakdown.push_back(p.breakdown);
  }
  put(group.get(), "probe", number, column, {"Number of the probe", ""});
  put(group.get(), "step", counting(steps), {steps}, {"Lanczos step", ""});
  put(group.get(), "steps_taken", steps_taken, column, {"Steps the probe took", ""});
  put(group.get(), "norm_sq", norm_sq, column, {"Squared norm of the probe", ""});
  put(group.get(), "breakdown", breakdown, column, {"1 where an invariant subspace was found", ""});
  put(group.get(), "orthogonality_loss", orthogonality, column,
      {"Loss of orthogonality: largest entry of |(Q'Q - I) g|, g random signs", ""});
  attach_scale(group.get(), "probe",
               {"alpha", "beta", "ritz", "weight", "steps_taken", "norm_sq", "breakdown", "orthogonality_loss"}, 0);
  attach_scale(group.get(), "step", {"alpha", "beta", "ritz", "weight"}, 1);
}

}  // namespace

void write_estimates(hid_t entry, const RunResult& r, const std::string& what) {
  if (r.density) write_density(entry, *r.density, what);
  if (r.cumulative) write_cumulative(entry, *r.cumulative, what);
  if (r.eigenvalues) write_eigenvalues(entry, *r.eigenvalues, what);
  if (r.trace) write_trace(entry, *r.trace, r.samples);
  if (!r.layers.empty()) write_layers(entry, r.layers, what);
  if (!r.quadrature.empty()) write_quadrature(entry, r.quadrature);
}

}  // namespace hesspect
