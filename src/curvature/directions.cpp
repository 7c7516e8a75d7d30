#include "hesspect/curvature/directions.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "hesspect/comm/agree.h"
#include "hesspect/core/random_probe.h"

namespace hesspect {

at::Tensor shard_of(const HessianOperator& op, const at::Tensor& whole) {
  const Shard& shard = op.shard();
  at::Tensor local = at::zeros({shard.chunk}, op.options());
  shard.for_each_piece([&](std::int64_t position, std::int64_t begin, std::int64_t size) {
    local.narrow(0, position, size).copy_(whole.narrow(0, begin, size));
  });
  return local;
}

at::Tensor filter_normalised(const HessianOperator& op, Program& program, std::uint64_t seed, std::uint64_t number) {
  return agreed(op.comm(), [&] {
    at::NoGradGuard no_grad;
    const at::Tensor& flat = program.flat_parameters();
    at::Tensor whole = at::zeros({program.layout().size()}, op.options().device(at::kCPU));
    for (const ParameterEntry& entry : program.layout().entries()) {
      const std::size_t dims = entry.shape.size() - (entry.is_complex() ? 1 : 0);  // the last are the pairs
      if (dims < 2 || entry.numel == 0) continue;
      const at::Tensor trained = flat.narrow(0, entry.offset, entry.numel).view({entry.shape[0], -1}).cpu();
      at::Tensor random = at::empty({entry.numel}, at::kDouble);
      fill_probe(ProbeDistribution::kGaussian, seed, number, op.shard().numbers.get(), entry.offset, entry.numel,
                 random.data_ptr<double>());
      random = random.view(trained.sizes());
      const at::Tensor norms = trained.to(at::kDouble).norm(2, {1}, /*keepdim=*/true);
      random.mul_(norms / random.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-300));
      whole.narrow(0, entry.offset, entry.numel).copy_(random.flatten());
    }
    return shard_of(op, whole);
  });
}

}  // namespace hesspect
