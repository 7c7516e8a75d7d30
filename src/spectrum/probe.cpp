#include "hesspect/spectrum/probe.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "hesspect/krylov/tridiagonal.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

/// Probe numbers for restarts: out of the way of a run's own probes.
constexpr std::uint64_t kRestartProbes = std::uint64_t{1} << 63;

template <class Real>
void fill(at::Tensor& host, const Shard& shard, ProbeDistribution distribution, std::uint64_t seed,
          std::uint64_t probe) {
  fill_probe<Real>(distribution, seed, probe, shard.begin(), shard.size(), host.mutable_data_ptr<Real>());
}

}  // namespace

at::Tensor probe_vector(const LinearOperator& op, ProbeDistribution distribution, std::uint64_t seed,
                        std::uint64_t probe) {
  const at::NoGradGuard no_grad;
  const Shard& shard = op.shard();
  at::Tensor host = at::zeros({shard.chunk}, op.options().device(at::kCPU));
  if (host.scalar_type() == at::kFloat)
    fill<float>(host, shard, distribution, seed, probe);
  else
    fill<double>(host, shard, distribution, seed, probe);
  if (distribution == ProbeDistribution::kSpherical) {
    scale_into(host, std::sqrt(static_cast<double>(shard.n) / op.comm().sum(norm_sq(host))), host);
  }
  return host.to(op.options().device());
}

ProbeRun run_probe(LinearOperator& op, std::int64_t probe, const ProbeOptions& options, const StepCallback& on_step) {
  ProbeRun run;
  const at::Tensor start = probe_vector(op, options.distribution, options.seed, static_cast<std::uint64_t>(probe));
  run.lanczos = std::make_unique<Lanczos>(op, start, options.lanczos);
  run.lanczos->extend(op, options.steps, on_step);
  run.quadrature = quadrature_of(*run.lanczos, probe);
  if (options.measure_orthogonality && options.lanczos.reorthogonalisation == Reorthogonalisation::kFull)
    run.quadrature.orthogonality_loss = run.lanczos->orthogonality_loss();
  return run;
}

bool restart_afresh(LinearOperator& op, Lanczos& run, std::uint64_t seed) {
  const std::uint64_t number = kRestartProbes + run.blocks().size() - 1;
  return run.restart(op, probe_vector(op, ProbeDistribution::kGaussian, seed, number));
}

bool all_found(const Lanczos& run) {
  if (!run.breakdown() || run.thick_restarts() > 0) return false;
  return run.complete() || (run.blocks().size() > 1 && run.blocks().back().size() == 1);
}

ProbeQuadrature quadrature_of(const Lanczos& run, std::int64_t probe) {
  const Lanczos::Block& block = all_found(run) ? run.blocks().back() : run.blocks().front();
  const auto m = static_cast<std::size_t>(block.end);
  ProbeQuadrature quadrature =
      quadrature_from(std::span(run.alpha()).first(m), std::span(run.beta()).first(m > 0 ? m - 1 : 0));
  quadrature.probe = probe;
  quadrature.beta_last = block.residual_norm;
  quadrature.norm_sq = run.start_norm_sq();
  quadrature.breakdown = block.closed;
  return quadrature;
}

ProbeQuadrature quadrature_from(std::span<const double> alpha, std::span<const double> beta) {
  ProbeQuadrature quadrature;
  quadrature.alpha.assign(alpha.begin(), alpha.end());
  quadrature.beta.assign(beta.begin(), beta.end());
  TridiagonalEigen eigen = tridiagonal_eigen(alpha, beta);
  quadrature.ritz = std::move(eigen.values);
  double sum = 0;
  for (const double s : eigen.first) {
    quadrature.weight.push_back(s * s);
    sum += s * s;
  }
  for (double& weight : quadrature.weight) weight /= sum;
  return quadrature;
}

}  // namespace hesspect
