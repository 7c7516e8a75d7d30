// eigenvalues() on a resumed run makes the decisions that it made the first time, with no state of its own.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/runs.h"

namespace hesspect {
namespace {

using testing::DenseOperator;
using testing::Saved;
using testing::Scalars;

void expect_same(const EigenResult& a, const EigenResult& b) {
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.converged, b.converged);
  EXPECT_EQ(a.exhausted, b.exhausted);
  for (const auto& [x, y] : {std::pair(&a.top, &b.top), std::pair(&a.bottom, &b.bottom)}) {
    ASSERT_EQ(x->size(), y->size());
    for (std::size_t i = 0; i < x->size(); ++i) {
      EXPECT_EQ((*x)[i].value, (*y)[i].value);
      EXPECT_EQ((*x)[i].residual, (*y)[i].residual);
      EXPECT_EQ((*x)[i].converged, (*y)[i].converged);
    }
  }
}

/// Records the run after every product, then resumes from every `stride`-th record.
void expect_resumable(LinearOperator& op, const std::int64_t& products, const EigenOptions& options,
                      const LanczosOptions& lanczos, std::size_t stride) {
  const at::Tensor start = probe_vector(op, ProbeDistribution::kRademacher, 3, 0);
  Lanczos first(op, start, lanczos);
  std::vector<Saved> stops = {Saved::of(first)};
  const EigenResult expected =
      eigenvalues(op, first, options, [&](const Lanczos& run) { stops.push_back(Saved::of(run)); });
  ASSERT_EQ(static_cast<std::int64_t>(stops.size()), expected.steps + 1);
  for (std::size_t taken = 0; taken < stops.size(); taken += stride) {
    Lanczos run = stops[taken].resume(op, lanczos);
    const std::int64_t before = products;
    expect_same(eigenvalues(op, run, options), expected);
    EXPECT_EQ(products - before, expected.steps - static_cast<std::int64_t>(taken));
    EXPECT_EQ(Scalars::of(run), Scalars::of(first)) << "stopped after " << taken;
  }
}

TEST(ResumedEigenvalues, MultipleEigenvaluesWithRestarts) {
  const auto world = MpiCommunicator::world();
  const at::Tensor matrix =
      testing::matrix_with_spectrum({5, 5, 5, 1, 1, -2, -2, -2, 0.5, 7, 0, 0, 0, 0, 0, 3, 3, -1, -1, 4}, 25);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
    for (const at::ScalarType storage : {at::ScalarType::Undefined, at::ScalarType::BFloat16}) {
      DenseOperator op(*world, matrix.to(dtype));
      LanczosOptions lanczos;
      lanczos.basis.storage = storage;
      expect_resumable(op, op.products, {.top = 5, .bottom = 4}, lanczos, 1);
    }
}

TEST(ResumedEigenvalues, AnUnevenSpectrum) {
  const auto world = MpiCommunicator::world();
  for (const at::ScalarType storage : {at::ScalarType::Undefined, at::ScalarType::BFloat16}) {
    testing::RotatedDiagonalOperator op(*world, 4001, at::kDouble, [](std::int64_t i) {
      return i % 500 == 3 ? 4 + static_cast<double>(i) / 1000 : 0.3 * std::cos(static_cast<double>(i));
    });
    LanczosOptions lanczos;
    lanczos.basis.storage = storage;
    expect_resumable(op, op.products, {.top = 6, .bottom = 1, .max_steps = 50}, lanczos, 7);
  }
}

}  // namespace
}  // namespace hesspect
