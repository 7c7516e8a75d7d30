#include "goals.h"

#include <algorithm>
#include <limits>

#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "planning.h"

namespace hesspect {
namespace {

constexpr std::int64_t kLeastOwnProducts = 6;

TraceMethod trace_method_from(const RunConfig& config) {
  const TraceMethod method = config.trace.trace_method;
  return method == TraceMethod::kDeflated && !config.quadrature.reorthogonalize ? TraceMethod::kHutchinson : method;
}

}  // namespace

std::int64_t Goals::products_left(std::int64_t used) const {
  if (max_products == 0) return std::numeric_limits<std::int64_t>::max();
  return std::max<std::int64_t>(0, max_products - used);
}

std::int64_t lanczos_runs(const RunConfig& config, const std::string& command) {
  const bool own_run = config.eigs.method == EigenMethod::kPower || config.eigs.block > 1;
  if (command == "eigs") return own_run ? 0 : 1;
  if (command == "trace") return trace_method_from(config) == TraceMethod::kDeflated ? 1 : 0;
  return config.quadrature.probes;
}

namespace {

/// Steps of the Lanczos runs, within the products that there are.
void set_steps(Goals& g, const RunConfig& config, std::int64_t parameters) {
  // A trace that has no accuracy to go by takes the space that it is told.
  const bool told = g.command == "trace" && g.trace == TraceMethod::kDeflated && g.rule.rtol <= 0;
  g.probe.steps = g.density || told ? config.quadrature.steps : 0;
  const std::int64_t most = most_steps(config.eigs, parameters);
  g.max_steps = most;
  if (g.max_products > 0) {
    const bool residuals = g.true_residuals && (g.eigenvalues || g.block);
    const std::int64_t wanted = config.eigs.top + config.eigs.bottom + config.eigs.magnitude;
    const std::int64_t left = std::max<std::int64_t>(1, g.max_products - kSymmetryProbes - (residuals ? wanted : 0));
    const std::int64_t runs = g.probes + (g.block || g.power ? 1 : 0);
    g.probe.steps = std::min(g.probe.steps, std::max<std::int64_t>(1, left / std::max<std::int64_t>(1, runs)));
    g.max_steps = std::min(g.max_steps, std::max<std::int64_t>(1, left - (runs - 1) * g.probe.steps));
  }
  if (!g.own_trace_method()) return;
  const bool xtrace = g.trace == TraceMethod::kXTrace;
  // As many vectors as the plan has room for: two for three products, and one for two.
  g.own_products = xtrace ? 2 * most : 3 * most / 2;
  if (g.rule.rtol <= 0) g.own_products = std::min(g.own_products, (xtrace ? 2 : 3) * config.quadrature.probes);
  g.own_products = std::max(g.own_products, kLeastOwnProducts);
  if (g.max_products > 0) g.own_products = std::min(g.own_products, g.max_products - kSymmetryProbes);
  if (g.own_products < kLeastOwnProducts)
    throw UsageError("--trace-method " + to_string(config.trace.trace_method) + " takes " +
                     std::to_string(kLeastOwnProducts) + " products at least, beside " +
                     std::to_string(kSymmetryProbes) + " of the symmetry check: --max-hvps " +
                     std::to_string(g.max_products) + " is too few");
}

}  // namespace

Goals goals_of(const RunConfig& config, const std::string& command, const Plan& plan, const LayerOffsets& offsets,
               std::int64_t parameters) {
  Goals g;
  g.command = command;
  const bool analyze = command == "analyze";
  const std::int64_t most = config.accuracy.max_hvps;
  g.confidence = config.accuracy.confidence;
  g.max_products = most;
  g.rounding =
      10 * (config.compute.dtype == ElementType::kF64 ? std::numeric_limits<double>::epsilon()
                                                      : static_cast<double>(std::numeric_limits<float>::epsilon()));
  g.probe.seed = config.quadrature.seed;
  g.probe.distribution = config.quadrature.distribution;
  LanczosOptions& lanczos = g.probe.lanczos;
  if (!config.quadrature.reorthogonalize) lanczos.reorthogonalisation = Reorthogonalisation::kNone;
  lanczos.basis.storage = to_scalar_type(plan.basis_dtype);
  lanczos.basis.on_host = plan.basis_memory == BasisMemory::kHost;
  g.probes = lanczos_runs(config, command);

  if (wants_eigenvalues(config, command)) {
    g.power = config.eigs.method == EigenMethod::kPower;
    g.block = !g.power && config.eigs.block > 1;
    g.eigenvalues = !g.power && !g.block;
  }
  if (analyze || command == "eigs") {
    g.true_residuals = config.eigs.true_residuals && config.quadrature.reorthogonalize && !g.power;
    g.eigenvectors = config.eigs.eigenvectors;
  }
  g.density = analyze || command == "density";
  g.w1 = g.density ? config.accuracy.density_w1 : 0;

  if (command != "eigs") g.trace = trace_method_from(config);
  if (command == "density" && g.own_trace_method()) g.trace.reset();
  g.rule.confidence = g.confidence;
  g.rule.rtol = command == "density" ? 0 : config.accuracy.rtol_trace;
  const bool told = command == "trace" || (!config.trace.diagonal.empty() && g.rule.rtol <= 0);
  g.rule.min_samples = told ? std::max(kSymmetryProbes, config.quadrature.probes) : kSymmetryProbes;
  if ((analyze || command == "trace") && config.trace.layers && g.samples_trace()) g.layers = offsets;
  if (g.samples_trace() && command != "density") g.diagonal = config.trace.diagonal;
  set_steps(g, config, parameters);

  g.eigen.top = config.eigs.top;
  g.eigen.bottom = config.eigs.bottom;
  g.eigen.magnitude = config.eigs.magnitude;
  g.eigen.max_steps = std::max(g.max_steps, g.probe.steps);
  g.eigen.max_basis = config.eigs.max_basis > 0 ? config.eigs.max_basis : plan.max_basis;
  g.eigen.rtol = config.eigs.rtol_eigs;
  g.eigen.seed = config.quadrature.seed;
  g.eigen.block = config.eigs.block;
  return g;
}

}  // namespace hesspect
