#include "hesspect/spectrum/probe.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "hesspect/comm/agree.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/krylov/tridiagonal_eigen.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {

at::Tensor probe_vector(const LinearOperator& op, ProbeDistribution distribution, std::uint64_t seed,
                        std::uint64_t probe) {
  return probe_vector(op.comm(), op.shard(), op.options(), distribution, seed, probe);
}

at::Tensor probe_vector(Communicator& comm, const Shard& shard, const at::TensorOptions& options,
                        ProbeDistribution distribution, std::uint64_t seed, std::uint64_t probe) {
  const at::NoGradGuard no_grad;
  at::Tensor host, vector;
  agree(comm, [&] {
    host = at::zeros({shard.chunk}, options.device(at::kCPU));
    vector = host.to(options.device());  // itself, where that is the CPU
    const auto fill = [&](auto* out) {
      shard.for_each_piece([&](std::int64_t position, std::int64_t begin, std::int64_t size) {
        fill_probe(distribution, seed, probe, shard.numbers.get(), begin, size, out + position);
      });
    };
    if (host.scalar_type() == at::kFloat)
      fill(host.mutable_data_ptr<float>());
    else
      fill(host.mutable_data_ptr<double>());
  });
  if (distribution == ProbeDistribution::kSpherical)
    scale_into(host, std::sqrt(static_cast<double>(shard.n) / comm.sum(norm_sq(host))), host);
  if (!vector.is_same(host)) vector.copy_(host);
  return vector;
}

bool restart_afresh(LinearOperator& op, Lanczos& run, std::uint64_t seed) {
  const std::uint64_t number = kRestartProbes + run.t().blocks.size() - 1;
  return run.restart(probe_vector(op, ProbeDistribution::kGaussian, seed, number));
}

bool all_found(const Tridiagonal& t) {
  if (!t.breakdown() || !t.thick_restarts.empty()) return false;
  return t.complete() || (t.blocks.size() > 1 && t.blocks.back().size() == 1);
}

ProbeQuadrature quadrature_of(const Tridiagonal& t, std::int64_t probe) {
  const Tridiagonal::Block& block = all_found(t) ? t.blocks.back() : t.blocks.front();
  const auto m = static_cast<std::size_t>(block.end);
  ProbeQuadrature quadrature = quadrature_from(std::span(t.alpha).first(m), std::span(t.beta).first(m > 0 ? m - 1 : 0));
  quadrature.probe = probe;
  quadrature.beta_last = block.residual_norm;
  quadrature.norm_sq = t.start_norm_sq;
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
