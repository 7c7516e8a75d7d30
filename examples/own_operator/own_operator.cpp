// The largest eigenvalues of an operator of one's own by hesspect's Lanczos, on one process or many:
//
//   A = diag(d) + s u uᵀ,   d_i = (i + 1/2) / n,   u_i = 1 / √n,   n = 100,000,   s = 10
//
// A bulk in (0, 1) and one outlier, as Hessians of trained networks have them. The outlier λ is known: it solves
// 1 = s Σ u_i² / (λ − d_i), which for large n is 1 = s ln(λ / (λ − 1)), so that λ = 1 / (1 − e^(−1/s)).
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <vector>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/mpi_session.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/krylov/vector_math.h"

namespace {

/// Each rank holds a chunk of every vector, and of d.
class DiagonalAndRankOne final : public hesspect::LinearOperator {
 public:
  DiagonalAndRankOne(hesspect::Communicator& comm, std::int64_t n, double s)
      : comm_(comm), shard_(hesspect::Shard::of(n, comm.size(), comm.rank())), s_(s) {
    at::Tensor mine = at::arange(shard_.begin(), shard_.end(), options());
    diagonal_ = at::zeros({shard_.chunk}, options());  // what pads the last rank's chunk stays zero
    diagonal_.narrow(0, 0, shard_.size()).copy_(mine.add_(0.5).div_(n));
    u_ = at::zeros({shard_.chunk}, options());
    u_.narrow(0, 0, shard_.size()).fill_(1 / std::sqrt(static_cast<double>(n)));
  }

  hesspect::Communicator& comm() const override { return comm_; }
  const hesspect::Shard& shard() const override { return shard_; }
  at::TensorOptions options() const override { return at::kDouble; }

  void apply(const at::Tensor& x, at::Tensor& y) override {
    const double along_u = comm_.sum(hesspect::dot_product(u_, x));  // over all ranks' chunks
    at::mul_out(y, diagonal_, x);
    y.add_(u_, s_ * along_u);
  }

 private:
  hesspect::Communicator& comm_;
  hesspect::Shard shard_;
  double s_;
  at::Tensor diagonal_, u_;  // [chunk]
};

void run() {
  constexpr std::int64_t kN = 100'000, kSteps = 30;
  constexpr double kS = 10;
  const std::unique_ptr<hesspect::Communicator> comm = hesspect::make_host_communicator();
  DiagonalAndRankOne op(*comm, kN, kS);

  // An entry of the start vector depends on its number alone: any number of ranks starts from the same.
  const hesspect::Shard& shard = op.shard();
  at::Tensor start = at::zeros({shard.chunk}, op.options());
  hesspect::fill_probe(hesspect::ProbeDistribution::kGaussian, /*seed=*/1, /*probe=*/0, shard.begin(), shard.size(),
                       start.mutable_data_ptr<double>());

  hesspect::Lanczos lanczos(op, start);
  lanczos.extend(op, kSteps);
  const std::vector<hesspect::RitzPair> pairs = lanczos.t().ritz_pairs();  // ascending
  if (comm->rank() != 0) return;
  std::printf("%lld products on %d ranks\n", static_cast<long long>(lanczos.steps()), comm->size());
  std::printf("largest eigenvalue %.10f (residual at most %.1e)\n", pairs.back().value, pairs.back().residual);
  std::printf("exact              %.10f\n", 1 / (1 - std::exp(-1 / kS)));
  std::printf("edge of the bulk   %.3f (residual at most %.1e; the exact edge is 1)\n", pairs[pairs.size() - 2].value,
              pairs[pairs.size() - 2].residual);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const hesspect::MpiSession session(argc, argv);
    run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "own_operator: %s\n", error.what());
    return 1;
  }
}
