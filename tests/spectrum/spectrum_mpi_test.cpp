// Probes, eigenvalues and traces on 1, 2, 3 and 4 ranks: the same as on one.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"
#include "spectrum/run_probe.h"
#include "support/forwarding_communicator.h"

namespace hesspect::spectrum_mpi_test {
namespace {

double spectrum_entry(std::int64_t i) {
  return i % 500 == 3 ? 4 + static_cast<double>(i) / 1000 : 0.3 * std::cos(static_cast<double>(i));
}

TEST(SpectrumMpi, ProbesAndEigenvaluesDoNotDependOnRanks) {
  LocalCommunicator alone;
  const auto world = MpiCommunicator::world();
  for (const ProbeDistribution distribution :
       {ProbeDistribution::kRademacher, ProbeDistribution::kGaussian, ProbeDistribution::kSpherical}) {
    testing::RotatedDiagonalOperator one(alone, 4001, at::kDouble, spectrum_entry),
        many(*world, 4001, at::kDouble, spectrum_entry);
    const ProbeOptions options{.seed = 5, .distribution = distribution, .steps = 20};
    ProbeRun a = run_probe(one, 3, options), b = run_probe(many, 3, options);
    for (std::size_t i = 0; i < 20; ++i) {
      EXPECT_NEAR(a.quadrature.alpha[i], b.quadrature.alpha[i], 1e-12);
      if (i < 19) {
        EXPECT_NEAR(a.quadrature.beta[i], b.quadrature.beta[i], 1e-12);
      }
    }
    EXPECT_NEAR(a.quadrature.norm_sq, b.quadrature.norm_sq, 1e-9);
    EXPECT_LT(b.lanczos->orthogonality_loss(), 1e-13);
    if (distribution == ProbeDistribution::kSpherical) {
      EXPECT_NEAR(b.quadrature.norm_sq, 4001, 1e-9);
    }
    const EigenOptions wanted{.top = 8, .bottom = 2, .max_steps = 60};
    const EigenResult x = eigenvalues(one, *a.lanczos, wanted), y = eigenvalues(many, *b.lanczos, wanted);
    EXPECT_EQ(x.steps, y.steps);
    EXPECT_EQ(one.products, many.products);
    ASSERT_EQ(x.top.size(), y.top.size());
    for (std::size_t i = 0; i < x.top.size(); ++i) EXPECT_NEAR(x.top[i].value, y.top[i].value, 1e-11);
  }
}

TEST(SpectrumMpi, RestartsAfterBreakdownAgree) {
  const auto world = MpiCommunicator::world();
  testing::DenseOperator op(*world, testing::matrix_with_spectrum({5, 5, 5, 1, 1, -2, -2, -2, 0.5, 7, 0}, 25));
  Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 1, 0));
  const EigenResult result = eigenvalues(op, run, {.top = 5, .bottom = 3});
  const double top[] = {7, 5, 5, 5, 1};
  ASSERT_EQ(result.top.size(), 5U);
  ASSERT_EQ(result.bottom.size(), 3U);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(result.top[i].value, top[i], 1e-11);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(result.bottom[i].value, -2, 1e-11);
}

/// A machine whose last rank rounds otherwise: sums come out differently there, by far more than rounding does.
class RoundsOtherwise : public testing::ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  void all_reduce_sum(std::span<double> values) override {
    ForwardingCommunicator::all_reduce_sum(values);
    if (rank() == size() - 1 && size() > 1)
      for (double& value : values) value *= 1 + 1e-9;
  }
  using ForwardingCommunicator::all_reduce_sum;
};

// Each rank solves T's eigenproblem by itself. Lists, the decision to stop and the vectors are rank 0's all the same.
TEST(SpectrumMpi, ListsAreRank0sWhereRanksRoundDifferently) {
  const auto world = MpiCommunicator::world();
  RoundsOtherwise comm(*world);
  testing::RotatedDiagonalOperator op(comm, 4001, at::kDouble, spectrum_entry);
  const auto expect_same = [&](const EigenResult& result) {
    std::vector<double> mine{static_cast<double>(result.steps)};
    for (const auto* list : {&result.top, &result.bottom})
      for (const EigenEstimate& one : *list) mine.insert(mine.end(), {one.value, one.converged ? 1.0 : 0.0});
    EXPECT_EQ(mine, world->of_rank0(mine));
  };
  const EigenOptions wanted{.top = 8, .bottom = 2, .max_steps = 60, .rtol = 1e-9, .block = 2};
  for (const Reorthogonalisation how : {Reorthogonalisation::kFull, Reorthogonalisation::kNone}) {
    Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 5, 3), {.reorthogonalisation = how});
    expect_same(eigenvalues(op, run, wanted));
    run.extend(op, 3);
    expect_same(eigenvalues_so_far(run, wanted));
  }
  expect_same(block_eigenvalues(op, wanted));
}

#ifndef __SANITIZE_ADDRESS__  // which ends the program at such a request
TEST(SpectrumMpi, ARankWithoutMemoryForAProbeIsHeardOnAll) {
  const auto world = MpiCommunicator::world();
  class Short : public testing::DiagonalOperator {
   public:
    using DiagonalOperator::DiagonalOperator;
    const Shard& shard() const override { return comm_.rank() == comm_.size() - 1 ? huge_ : shard_; }

   private:
    Shard huge_{std::int64_t{1} << 58, 1, 0, std::int64_t{1} << 58};
  } op(*world, 100, at::kDouble, spectrum_entry);
  for (const ProbeDistribution distribution : {ProbeDistribution::kRademacher, ProbeDistribution::kSpherical})
    EXPECT_THROW(probe_vector(op, distribution, 1, 0), MemoryError);
}
#endif

}  // namespace
}  // namespace hesspect::spectrum_mpi_test
