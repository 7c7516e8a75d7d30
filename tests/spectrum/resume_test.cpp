// eigenvalues() on a resumed run makes the decisions that it made the first time, with no state of its own.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/runs.h"

namespace hesspect::resume_test {
namespace {

using testing::DenseOperator;
using testing::Saved;
using testing::Scalars;

void expect_same(const EigenResult& a, const EigenResult& b) {
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.converged, b.converged);
  EXPECT_EQ(a.exhausted, b.exhausted);
  EXPECT_EQ(a.thick_restarts, b.thick_restarts);
  for (const auto& [x, y] :
       {std::pair(&a.top, &b.top), std::pair(&a.bottom, &b.bottom), std::pair(&a.magnitude, &b.magnitude)}) {
    ASSERT_EQ(x->size(), y->size());
    for (std::size_t i = 0; i < x->size(); ++i) {
      EXPECT_EQ((*x)[i].value, (*y)[i].value);
      EXPECT_EQ((*x)[i].residual, (*y)[i].residual);
      EXPECT_EQ((*x)[i].error, (*y)[i].error);
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
  EXPECT_EQ(expected.thick_restarts > 0, options.max_basis > 0);
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

TEST(ResumedEigenvalues, ThickRestarts) {
  const auto world = MpiCommunicator::world();
  testing::RotatedDiagonalOperator op(*world, 4001, at::kDouble, [](std::int64_t i) {
    return i % 200 == 3 ? 2 + static_cast<double>(i) / 1000 : std::cos(static_cast<double>(i));
  });
  const EigenOptions both{.top = 6, .bottom = 2, .max_steps = 60, .max_basis = 20};
  expect_resumable(op, op.products, both, {}, 7);
  const EigenOptions magnitude{.top = 0, .magnitude = 8, .max_steps = 60, .max_basis = 18};
  expect_resumable(op, op.products, magnitude, {}, 7);
}

// Copies of multiple eigenvalues in float32: the driver waits until they show no more, over thick restarts too.
TEST(ResumedEigenvalues, MultipleEigenvaluesWithThickRestarts) {
  const auto world = MpiCommunicator::world();
  std::vector<double> values(90);
  for (std::size_t i = 0; i < 90; ++i)
    values[i] = i < 9 ? 4 - static_cast<double>(i / 3) : std::cos(static_cast<double>(i % 12));
  const at::Tensor matrix = testing::matrix_with_spectrum(values, 29);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    DenseOperator op(*world, matrix.to(dtype));
    expect_resumable(op, op.products, {.top = 16, .max_steps = 400, .max_basis = 24}, {}, 11);
  }
}

// A machine with more memory, or less, than the one before: other thick restarts, the same eigenvalues.
TEST(ResumedEigenvalues, WithAnotherBasis) {
  const auto world = MpiCommunicator::world();
  testing::RotatedDiagonalOperator op(*world, 4001, at::kDouble, [](std::int64_t i) {
    return i % 200 == 3 ? 2 + static_cast<double>(i) / 1000 : std::cos(static_cast<double>(i));
  });
  const EigenOptions small{.top = 6, .max_steps = 300, .max_basis = 16},
      large{.top = 6, .max_steps = 300, .max_basis = 40};
  for (const auto& [before, after] : {std::pair(small, large), std::pair(large, small)}) {
    Lanczos first(op, probe_vector(op, ProbeDistribution::kRademacher, 3, 0));
    EigenOptions shortly = before;
    shortly.max_steps = 30;
    eigenvalues(op, first, shortly);
    Lanczos run = Saved::of(first).resume(op, {});
    const EigenResult result = eigenvalues(op, run, after);
    EXPECT_TRUE(result.converged);
    EXPECT_GT(result.thick_restarts, 0);
    for (std::size_t i = 0; i < 6; ++i)
      EXPECT_NEAR(result.top[i].value, 2 + (3.803 - 0.2 * static_cast<double>(i)), 1e-9) << i;
  }
}

}  // namespace
}  // namespace hesspect::resume_test
