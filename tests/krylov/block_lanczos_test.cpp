// Block Lanczos against dense matrices, on 1 to 4 ranks.
#include "hesspect/krylov/block_lanczos.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "krylov/test_operators.h"

namespace hesspect::block_lanczos_test {
namespace {

using testing::DenseOperator;

/// Independent of all others with another k.
at::Tensor start_vector(const LinearOperator& op, int k) {
  const Shard& shard = op.shard();
  at::Tensor local = at::zeros({shard.chunk}, at::kDouble);
  double* out = local.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < shard.size(); ++i)
    out[i] = std::sin((3.7 + 1.1 * k) * static_cast<double>(shard.begin() + i + 1) + 0.3);
  return local.to(op.options().dtype());
}

std::vector<at::Tensor> starts(const LinearOperator& op, int count) {
  std::vector<at::Tensor> all;
  for (int i = 0; i < count; ++i) all.push_back(start_vector(op, i));
  return all;
}

at::Tensor gathered(const LinearOperator& op, const at::Tensor& local) {
  at::Tensor full = at::empty({op.shard().padded()}, op.options());
  op.comm().all_gather(local.contiguous(), full);
  return full.narrow(0, 0, op.shard().n).to(at::kDouble);
}

/// The basis and the next block as columns, [n, rows].
at::Tensor basis_of(const LinearOperator& op, const BlockLanczos& run) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& block : run.basis_rows())
    for (std::int64_t i = 0; i < block.size(0); ++i) all.push_back(gathered(op, block[i]));
  return at::stack(all, 1);
}

/// A Q = Q_all C and Q_allᵀ Q_all = I, with A dense; Ritz pairs and their residuals against those of QᵀAQ.
void expect_exact(const LinearOperator& op, const BlockLanczos& run, const at::Tensor& matrix, double tolerance) {
  const at::Tensor all = basis_of(op, run), a = matrix.to(at::kDouble);
  const std::int64_t m = run.rows();
  at::Tensor columns = at::zeros({all.size(1), m}, at::kDouble);
  for (std::int64_t j = 0; j < m; ++j) {
    const std::vector<double>& column = run.columns()[static_cast<std::size_t>(j)];
    for (std::size_t i = 0; i < column.size(); ++i) columns[static_cast<std::int64_t>(i)][j] = column[i];
  }
  const at::Tensor q = all.narrow(1, 0, m);
  EXPECT_LT((at::mm(a, q) - at::mm(all, columns)).abs().max().item<double>(), tolerance);
  EXPECT_LT((at::mm(all.t(), all) - at::eye(all.size(1), at::kDouble)).abs().max().item<double>(), tolerance);

  const std::vector<RitzPair> pairs = run.ritz_pairs();
  const std::vector<double> s = run.ritz_coefficients(testing::first_indices(run.rows()));
  ASSERT_EQ(pairs.size(), static_cast<std::size_t>(m));
  const at::Tensor theta = at::linalg_eigvalsh(at::mm(q.t(), at::mm(a, q)));
  for (std::int64_t i = 0; i < m; ++i) {
    const RitzPair& pair = pairs[static_cast<std::size_t>(i)];
    EXPECT_NEAR(pair.value, theta[i].item<double>(), tolerance);
    const at::Tensor y = gathered(
        op, run.ritz_vector(std::span(s).subspan(static_cast<std::size_t>(i * m), static_cast<std::size_t>(m))));
    EXPECT_NEAR(at::norm(at::mv(a, y) - pair.value * y).item<double>(), pair.residual, 10 * tolerance);
    EXPECT_NEAR(at::norm(y).item<double>(), 1, tolerance);
  }
}

class BlockLanczosTest : public ::testing::Test {
 protected:
  std::unique_ptr<MpiCommunicator> world_ = MpiCommunicator::world();
};

TEST_F(BlockLanczosTest, TheFactorisationHoldsStepByStep) {
  const at::Tensor matrix = testing::gaussian_matrix(61, 3);
  for (const int block : {1, 3, 7}) {
    DenseOperator op(*world_, matrix);
    BlockLanczos run(op, starts(op, block));
    // 5 at a time cut blocks of 3 and 7 in two.
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(run.extend(op, 5), 5);
      expect_exact(op, run, matrix, 1e-12);
    }
    EXPECT_EQ(run.products(), 20);
    EXPECT_EQ(op.products, 20);
    EXPECT_EQ(run.next_rows(), block);
  }
}

TEST_F(BlockLanczosTest, Float32HoldsToItsRounding) {
  const at::Tensor matrix = testing::gaussian_matrix(80, 4).to(at::kFloat);
  DenseOperator op(*world_, matrix);
  BlockLanczos run(op, starts(op, 4));
  run.extend(op, 24);
  expect_exact(op, run, matrix, 3e-6);
}

TEST_F(BlockLanczosTest, AllOfASmallSpaceGivesTheSpectrum) {
  const at::Tensor matrix = testing::gaussian_matrix(23, 5);
  for (const int block : {2, 5, 23, 30}) {
    DenseOperator op(*world_, matrix);
    BlockLanczos run(op, starts(op, block));
    EXPECT_EQ(run.extend(op, 1000), 23);
    EXPECT_TRUE(run.closed());
    EXPECT_TRUE(run.complete());
    EXPECT_FALSE(run.restart(start_vector(op, 9)));
    expect_exact(op, run, matrix, 1e-12);
  }
}

TEST_F(BlockLanczosTest, ABlockSeesAsManyCopiesAsItHasVectorsAndARestartSeesMore) {
  std::vector<double> values;
  for (const double value : {5.0, 4.0, 1.0, -2.0, 0.5})
    for (int copy = 0; copy < 5; ++copy) values.push_back(value);
  const at::Tensor matrix = testing::matrix_with_spectrum(values, 6);
  DenseOperator op(*world_, matrix);
  BlockLanczos run(op, starts(op, 3));
  run.extend(op, 100);
  EXPECT_TRUE(run.closed());
  EXPECT_EQ(run.rows(), 15);
  expect_exact(op, run, matrix, 1e-11);
  EXPECT_EQ(run.extend(op, 10), 0);

  EXPECT_TRUE(run.restart(start_vector(op, 9)));
  EXPECT_TRUE(run.restart(start_vector(op, 10)));
  EXPECT_FALSE(run.closed());
  run.extend(op, 100);
  EXPECT_TRUE(run.complete());
  EXPECT_EQ(run.spaces(), 2);
  expect_exact(op, run, matrix, 1e-11);
}

TEST_F(BlockLanczosTest, ClustersAreResolved) {
  std::vector<double> values;
  for (int i = 0; i < 40; ++i) values.push_back(i < 3 ? 5 - 1e-8 * i : std::sin(i));
  const at::Tensor matrix = testing::matrix_with_spectrum(values, 12);
  DenseOperator op(*world_, matrix);
  BlockLanczos run(op, starts(op, 3));
  run.extend(op, 36);
  expect_exact(op, run, matrix, 1e-11);
  const std::vector<RitzPair> pairs = run.ritz_pairs();
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_NEAR(pairs[pairs.size() - 1 - i].value, 5 - 1e-8 * static_cast<double>(i), 1e-12);
}

TEST_F(BlockLanczosTest, DependentVectorsAreDropped) {
  const at::Tensor matrix = testing::gaussian_matrix(30, 7);
  DenseOperator op(*world_, matrix);
  const at::Tensor a = start_vector(op, 1), b = start_vector(op, 2);
  const at::Tensor dependent[] = {a, 2 * a, b, a - 3 * b, at::zeros_like(a)};
  BlockLanczos run(op, dependent);
  EXPECT_EQ(run.next_rows(), 2);
  run.extend(op, 9);
  expect_exact(op, run, matrix, 1e-12);

  // Start vectors in an invariant space of three dimensions.
  const at::Tensor vectors = std::get<1>(at::linalg_eigh(matrix));
  std::vector<at::Tensor> inside;
  for (int i = 0; i < 4; ++i) {
    const at::Tensor whole = at::mv(vectors.narrow(1, 4, 3), at::tensor({1.0, 0.5 * i, 0.3 * i * i}, at::kDouble));
    at::Tensor local = at::zeros({op.shard().chunk}, at::kDouble);
    local.narrow(0, 0, op.shard().size()).copy_(whole.narrow(0, op.shard().begin(), op.shard().size()));
    inside.push_back(local);
  }
  BlockLanczos closed(op, inside);
  EXPECT_EQ(closed.next_rows(), 3);
  EXPECT_EQ(closed.extend(op, 100), 3);
  EXPECT_TRUE(closed.closed());
  expect_exact(op, closed, matrix, 1e-12);
}

TEST_F(BlockLanczosTest, ThickRestartKeepsPairsAndGoesOn) {
  std::vector<double> values;
  for (int i = 0; i < 150; ++i) values.push_back(i < 4 ? 3 : std::cos(0.02 * i));  // four copies over a crowded edge
  const at::Tensor matrix = testing::matrix_with_spectrum(values, 8);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    DenseOperator op(*world_, matrix.to(dtype));
    BlockLanczos run(op, starts(op, 4));
    const double tolerance = dtype == at::kDouble ? 1e-11 : 2e-5;
    for (int cycle = 0; cycle < 6; ++cycle) {
      run.extend(op, 30 - run.rows() + 2 * (cycle % 2));
      const std::vector<RitzPair> before = run.ritz_pairs();
      const std::size_t last = before.size() - 1;
      const std::size_t keep[] = {0, last - 5, last - 4, last - 3, last - 2, last - 1, last};
      run.thick_restart(keep);
      EXPECT_EQ(run.rows(), 7);
      expect_exact(op, run, matrix.to(dtype), tolerance);
      const std::vector<RitzPair> after = run.ritz_pairs();
      for (std::size_t i = 0; i < 7; ++i) {
        EXPECT_NEAR(after[i].value, before[keep[i]].value, tolerance);
        EXPECT_NEAR(after[i].residual, before[keep[i]].residual, tolerance);
      }
    }
    EXPECT_EQ(run.thick_restarts(), 6);
    const std::vector<RitzPair> found = run.ritz_pairs();
    for (std::size_t i = 3; i < 7; ++i) EXPECT_NEAR(found[i].value, 3, tolerance);
    EXPECT_LT(found[2].value, 1.1);
  }
}

TEST_F(BlockLanczosTest, ThickRestartAfterTheSpaceHasClosed) {
  std::vector<double> values;
  for (int i = 0; i < 60; ++i) values.push_back(i % 6);  // ten copies of six values
  const at::Tensor matrix = testing::matrix_with_spectrum(values, 9);
  DenseOperator op(*world_, matrix);
  BlockLanczos run(op, starts(op, 2));
  run.extend(op, 100);
  EXPECT_EQ(run.rows(), 12);
  for (int i = 0; i < 8; ++i) {
    const std::vector<RitzPair> pairs = run.ritz_pairs();
    std::vector<std::size_t> top;
    for (std::size_t j = 0; j < pairs.size(); ++j)
      if (pairs[j].value > 4.5) top.push_back(j);
    ASSERT_EQ(top.size(), static_cast<std::size_t>(2 + i));
    run.thick_restart(top);
    ASSERT_TRUE(run.restart(start_vector(op, 20 + i)));
    expect_exact(op, run, matrix, 1e-11);
    run.extend(op, 100);
    expect_exact(op, run, matrix, 1e-11);
  }
}

TEST_F(BlockLanczosTest, ScalarsDoNotDependOnRanks) {
  LocalCommunicator alone;
  const at::Tensor matrix = testing::gaussian_matrix(101, 10);
  DenseOperator one(alone, matrix), many(*world_, matrix);
  BlockLanczos a(one, starts(one, 3)), b(many, starts(many, 3));
  a.extend(one, 30);
  b.extend(many, 30);
  const std::vector<RitzPair> x = a.ritz_pairs(), y = b.ritz_pairs();
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(x[i].value, y[i].value, 1e-12);
    EXPECT_NEAR(x[i].residual, y[i].residual, 1e-12);
  }
  EXPECT_NEAR(a.scale(), b.scale(), 1e-12);
}

TEST_F(BlockLanczosTest, WhatIsNotFiniteIsToldOnAllRanks) {
  at::Tensor matrix = testing::gaussian_matrix(20, 11);
  DenseOperator op(*world_, matrix);
  const at::Tensor zero[] = {at::zeros({op.shard().chunk}, at::kDouble)};
  EXPECT_THROW(BlockLanczos(op, zero), NumericalError);
  BlockLanczos run(op, starts(op, 2));
  run.extend(op, 4);
  matrix[19][19] = std::numeric_limits<double>::infinity();
  EXPECT_THROW(run.extend(op, 4), NumericalError);
  EXPECT_EQ(run.products(), 4);
  EXPECT_EQ(run.rows(), 4);
  EXPECT_EQ(run.next_rows(), 2);
}

}  // namespace
}  // namespace hesspect::block_lanczos_test
