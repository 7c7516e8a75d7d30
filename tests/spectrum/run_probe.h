// A probe from its number to its quadrature, in one call.
#pragma once

#include <cstdint>
#include <memory>

#include "hesspect/spectrum/probe.h"

namespace hesspect {

struct ProbeOptions {
  std::uint64_t seed = 0;
  ProbeDistribution distribution = ProbeDistribution::kRademacher;
  std::int64_t steps = 80;
  LanczosOptions lanczos = {};
};

/// A probe's result, and its run, which `eigenvalues` can take further.
struct ProbeRun {
  ProbeQuadrature quadrature;
  std::unique_ptr<Lanczos> lanczos;
};

/// Runs one probe. Collective over op.comm().
/// @param on_step  called on every rank after each product
/// @throws as Lanczos::extend
inline ProbeRun run_probe(LinearOperator& op, std::int64_t probe, const ProbeOptions& options,
                          const StepCallback& on_step = {}) {
  ProbeRun run;
  const at::Tensor start = probe_vector(op, options.distribution, options.seed, static_cast<std::uint64_t>(probe));
  run.lanczos = std::make_unique<Lanczos>(op, start, options.lanczos);
  run.lanczos->extend(op, options.steps, on_step);
  run.quadrature = quadrature_of(run.lanczos->t(), probe);
  return run;
}

}  // namespace hesspect
