// Thick restarts, against dense algebra in float64, on 1 to 4 ranks.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "krylov/runs.h"

namespace hesspect::thick_restart_test {
namespace {

using testing::DenseOperator;
using testing::fresh_vector;
using testing::gaussian_matrix;
using testing::pattern_vector;

/// A local vector's shards as one vector of n entries, in float64.
at::Tensor gathered(LinearOperator& op, const at::Tensor& local) {
  at::Tensor full = at::empty({op.shard().padded()}, local.options());
  op.comm().all_gather(local.contiguous(), full);
  return full.narrow(0, 0, op.shard().n).to(at::kDouble);
}

/// [rows, n]
at::Tensor gathered_rows(LinearOperator& op, const Lanczos& run) {
  std::vector<at::Tensor> rows;
  for (const at::Tensor& block : run.basis_rows())
    for (std::int64_t i = 0; i < block.size(0); ++i) rows.push_back(gathered(op, block.select(0, i)));
  return at::stack(rows);
}

at::Tensor matrix_of(const Projection& projection) {
  return at::tensor(projection.t, at::kDouble).view({projection.rows, projection.rows});
}

/// The lowest and the highest Ritz pairs.
std::vector<std::size_t> ends(const Lanczos& run, std::size_t low, std::size_t high) {
  std::vector<std::size_t> keep(low + high);
  std::iota(keep.begin(), keep.end(), std::size_t{0});
  for (std::size_t i = low; i < keep.size(); ++i) keep[i] += static_cast<std::size_t>(run.t().rows()) - keep.size();
  return keep;
}

/// A Q = Q T + β q eᵀ with Q orthonormal, and every Ritz vector's true residual is its bound.
void expect_factorisation(DenseOperator& op, const at::Tensor& matrix, const Lanczos& run, double tolerance) {
  const Projection projection = run.t().projection();
  const std::int64_t m = projection.rows;
  ASSERT_EQ(m, run.t().rows());
  const at::Tensor rows = gathered_rows(op, run), t = matrix_of(projection);
  ASSERT_EQ(rows.size(0), m + (run.t().breakdown() ? 0 : 1));
  EXPECT_LT((at::mm(rows, rows.t()) - at::eye(rows.size(0), at::kDouble)).abs().max().item<double>(), tolerance);
  const at::Tensor q = rows.narrow(0, 0, m);
  at::Tensor rest = at::mm(q, matrix) - at::mm(t, q);  // its rows: the columns of A Q − Q T
  if (!run.t().breakdown()) rest[m - 1].sub_(rows[m], projection.beta);
  EXPECT_LT(rest.abs().max().item<double>(), tolerance);

  const at::Tensor expected = at::linalg_eigvalsh(t);
  const std::vector<RitzPair> pairs = run.t().ritz_pairs();
  const std::vector<double> coefficients = run.t().ritz_coefficients(testing::first_indices(m));
  ASSERT_EQ(static_cast<std::int64_t>(pairs.size()), m);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_NEAR(pairs[i].value, expected[static_cast<std::int64_t>(i)].item<double>(), 1e-13);
    const auto size = static_cast<std::size_t>(m);
    const at::Tensor y = gathered(op, run.ritz_vector(std::span(coefficients).subspan(i * size, size)));
    EXPECT_NEAR(y.norm().item<double>(), 1, tolerance);
    EXPECT_NEAR((at::mv(matrix, y) - pairs[i].value * y).norm().item<double>(), pairs[i].residual, 10 * tolerance) << i;
  }
}

TEST(ThickRestart, KeepsTheFactorisation) {
  const auto world = MpiCommunicator::world();
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const at::Tensor matrix = gaussian_matrix(203, 4).to(dtype);
    const double tolerance = dtype == at::kDouble ? 1e-12 : 5e-6;
    DenseOperator op(*world, matrix);
    Lanczos run(op, pattern_vector(op));
    run.extend(op, 40);
    expect_factorisation(op, matrix.to(at::kDouble), run, tolerance);
    std::int64_t steps = 40;
    for (const std::int64_t more : {1, 20, 7}) {
      const std::vector<RitzPair> before = run.t().ritz_pairs();
      const std::vector<std::size_t> keep = ends(run, 3, 9);
      run.thick_restart(keep);
      EXPECT_EQ(run.t().rows(), 12);
      EXPECT_EQ(run.steps(), steps);
      const std::vector<RitzPair> after = run.t().ritz_pairs();  // with their bounds, before any step
      for (std::size_t i = 0; i < keep.size(); ++i) {
        EXPECT_EQ(after[i].value, before[keep[i]].value);
        EXPECT_NEAR(after[i].residual, before[keep[i]].residual, 1e-14);
      }
      EXPECT_THROW(run.t().projection(), Error);
      run.extend(op, more);
      steps += more;
      EXPECT_EQ(run.steps(), steps);
      EXPECT_EQ(run.t().rows(), 12 + more);
      expect_factorisation(op, matrix.to(at::kDouble), run, tolerance);
    }
    EXPECT_EQ(run.t().thick_restarts.size(), 3U);
    EXPECT_LT(run.orthogonality_loss(), 40 * tolerance);
    EXPECT_EQ(op.products, steps);
    EXPECT_EQ(static_cast<std::int64_t>(run.t().alpha.size()), steps);
    EXPECT_EQ(run.t().blocks.front().end, 40);  // the first recurrence, as the quadrature reads it
  }
}

TEST(ThickRestart, TwiceWithoutAStepBetween) {
  const auto world = MpiCommunicator::world();
  const at::Tensor matrix = gaussian_matrix(100, 5);
  DenseOperator op(*world, matrix);
  Lanczos run(op, pattern_vector(op));
  run.extend(op, 30);
  run.thick_restart(ends(run, 5, 5));
  run.thick_restart(ends(run, 2, 4));
  run.extend(op, 10);
  EXPECT_EQ(run.t().rows(), 16);
  expect_factorisation(op, matrix, run, 1e-12);
}

TEST(ThickRestart, BasisNeverGrowsBeyondItsRows) {
  const auto world = MpiCommunicator::world();
  DenseOperator op(*world, gaussian_matrix(300, 6));
  Lanczos run(op, pattern_vector(op));
  std::int64_t bytes = 0;
  for (int cycle = 0; cycle < 6; ++cycle) {
    run.extend(op, 31 - run.t().rows());
    if (cycle == 0) bytes = run.basis_bytes();
    EXPECT_EQ(run.basis_bytes(), bytes);
    EXPECT_EQ(bytes, 32 * op.shard().chunk * 8);
    run.thick_restart(ends(run, 0, 12));
  }
}

// Closed spaces on either side of a thick restart: nothing of what they hold is lost.
TEST(ThickRestart, BetweenBreakdowns) {
  const auto world = MpiCommunicator::world();
  const at::Tensor matrix = testing::matrix_with_spectrum({5, 5, 5, 1, 1, -2, -2, -2, 0.5, 7, 7, 3}, 5);
  DenseOperator op(*world, matrix);
  Lanczos run(op, pattern_vector(op));
  run.extend(op, 100);
  ASSERT_TRUE(run.t().breakdown());
  ASSERT_EQ(run.steps(), 6);
  EXPECT_THROW(run.thick_restart(ends(run, 1, 1)), Error);
  ASSERT_TRUE(run.restart(fresh_vector(op, 1)));
  run.extend(op, 2);
  ASSERT_FALSE(run.t().breakdown());
  expect_factorisation(op, matrix, run, 1e-12);
  run.thick_restart(ends(run, 2, 4));
  EXPECT_EQ(run.t().rows(), 6);
  run.extend(op, 1);
  expect_factorisation(op, matrix, run, 1e-12);
  for (std::size_t blocks = 2; !run.t().complete(); ++blocks) {
    run.extend(op, 100);
    expect_factorisation(op, matrix, run, 1e-12);
    if (run.t().complete()) break;
    ASSERT_TRUE(run.restart(fresh_vector(op, blocks)));
  }
  EXPECT_EQ(run.t().rows(), 12);
  const at::Tensor expected = at::linalg_eigvalsh(matrix);
  const std::vector<RitzPair> pairs = run.t().ritz_pairs();
  for (std::size_t i = 0; i < 12; ++i)
    EXPECT_NEAR(pairs[i].value, expected[static_cast<std::int64_t>(i)].item<double>(), 1e-12);
}

TEST(ThickRestart, WhatCantBeKeptIsRefused) {
  const auto world = MpiCommunicator::world();
  DenseOperator op(*world, gaussian_matrix(60, 7));
  Lanczos run(op, pattern_vector(op));
  EXPECT_THROW(run.thick_restart({}), Error);  // no rows yet
  run.extend(op, 10);
  const std::size_t out_of_order[] = {3, 2}, beyond[] = {4, 10};
  EXPECT_THROW(run.thick_restart(out_of_order), Error);
  EXPECT_THROW(run.thick_restart(beyond), Error);
  EXPECT_THROW(run.thick_restart(ends(run, 0, 10)), Error);
  run.thick_restart(ends(run, 0, 9));
  EXPECT_EQ(run.t().rows(), 9);

  LanczosOptions narrow, none;
  narrow.basis.storage = at::kFloat;
  none.reorthogonalisation = Reorthogonalisation::kNone;
  for (const LanczosOptions& options : {narrow, none}) {
    Lanczos other(op, pattern_vector(op), options);
    other.extend(op, 10);
    EXPECT_FALSE(other.can_restart_thick());
    const std::size_t keep[] = {9};
    EXPECT_THROW(other.thick_restart(keep), UsageError);
  }
}

}  // namespace
}  // namespace hesspect::thick_restart_test
