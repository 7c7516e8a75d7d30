// Eigenvalues by block Lanczos: multiplicities and clusters, against spectra that are known, on 1 to 4 ranks.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "krylov/test_operators.h"

namespace hesspect::block_eigenvalues_test {
namespace {

using testing::DenseOperator;

at::Tensor gathered(const LinearOperator& op, const at::Tensor& local) {
  at::Tensor full = at::empty({op.shard().padded()}, op.options());
  op.comm().all_gather(local.contiguous(), full);
  return full.narrow(0, 0, op.shard().n).to(at::kDouble);
}

/// Lists against ascending eigenvalues, and bounds that hold.
void expect_lists(const EigenResult& result, std::vector<double> exact, double tolerance) {
  std::ranges::sort(exact);
  const std::size_t n = exact.size();
  for (std::size_t i = 0; i < result.top.size(); ++i) {
    EXPECT_NEAR(result.top[i].value, exact[n - 1 - i], tolerance);
    EXPECT_LE(std::abs(result.top[i].value - exact[n - 1 - i]), result.top[i].error + 1e-13);
    EXPECT_LE(result.top[i].error, result.top[i].residual);
  }
  for (std::size_t i = 0; i < result.bottom.size(); ++i) {
    EXPECT_NEAR(result.bottom[i].value, exact[result.bottom.size() - 1 - i], tolerance);
    EXPECT_LE(std::abs(result.bottom[i].value - exact[result.bottom.size() - 1 - i]), result.bottom[i].error + 1e-13);
  }
  std::ranges::sort(exact, std::greater(), [](double x) { return std::abs(x); });
  for (std::size_t i = 0; i < result.magnitude.size(); ++i) EXPECT_NEAR(result.magnitude[i].value, exact[i], tolerance);
}

class BlockEigenvalues : public ::testing::Test {
 protected:
  std::unique_ptr<MpiCommunicator> world_ = MpiCommunicator::world();
};

/// A semicircle bulk on [−2, 2] and eigenvalues above it, all in general position: no Krylov space closes.
class SemicircleAndOutliers : public testing::OperatorBase {
 public:
  SemicircleAndOutliers(Communicator& comm, std::int64_t n, const std::vector<double>& outliers)
      : OperatorBase(comm, n, at::kDouble), bulk_(comm, testing::gaussian_matrix(n, 31)) {
    at::manual_seed(32);
    const auto count = static_cast<std::int64_t>(outliers.size());
    const at::Tensor u = std::get<0>(at::linalg_qr(at::randn({n, count}, at::kDouble)));
    u_ = at::zeros({shard_.chunk, count}, at::kDouble);
    u_.narrow(0, 0, shard_.size()).copy_(u.narrow(0, shard_.begin(), shard_.size()));
    values_ = at::tensor(outliers, at::kDouble);
  }
  /// (I − UUᵀ) G (I − UUᵀ) + U diag(outliers) Uᵀ
  void apply(const at::Tensor& x, at::Tensor& y) override {
    at::Tensor c = inner(x);
    bulk_.apply(x - at::mv(u_, c), y);
    y.sub_(at::mv(u_, inner(y) - values_ * c));
    ++products;
  }

 private:
  at::Tensor inner(const at::Tensor& x) {
    at::Tensor c = at::mv(u_.t(), x);
    comm_.all_reduce_sum(c);
    return c;
  }
  DenseOperator bulk_;
  at::Tensor u_, values_;
};

TEST_F(BlockEigenvalues, EqualOnesOverABulkAreFoundAsOftenAsTheyAre) {
  SemicircleAndOutliers op(*world_, 2000, {4, 4, 4});
  VectorSource vectors;
  const EigenResult result = block_eigenvalues(op, {.top = 4, .rtol = 2e-3, .seed = 1, .block = 3}, &vectors);
  ASSERT_EQ(result.top.size(), 4U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(result.top[i].value, 4, 1e-9);
    EXPECT_TRUE(result.top[i].converged);
    for (std::size_t j = 0; j <= i; ++j)
      EXPECT_NEAR(at::dot(gathered(op, vectors(i)), gathered(op, vectors(j))).item<double>(), i == j ? 1 : 0, 1e-10);
  }
  EXPECT_NEAR(result.top[3].value, 2, 0.05);
  EXPECT_TRUE(result.converged);
  EXPECT_EQ(result.method, "block lanczos");
  EXPECT_EQ(result.steps, op.products);
}

TEST_F(BlockEigenvalues, ClustersOverABulkAreResolved) {
  const std::vector<double> outliers = {5, 5 - 5e-6, 5 - 1e-5, 4};
  SemicircleAndOutliers op(*world_, 1000, outliers);
  const EigenResult result = block_eigenvalues(op, {.top = 4, .rtol = 1e-9, .seed = 2, .block = 3});
  EXPECT_TRUE(result.converged);
  expect_lists(result, outliers, 1e-9);
}

TEST_F(BlockEigenvalues, AClosedSpaceIsRestartedUntilNothingIsAdded) {
  std::vector<double> values;
  for (const double value : {7.0, 5.0, 5.0, 5.0, 5.0, 5.0}) values.push_back(value);
  for (int i = 0; i < 60; ++i) values.push_back(i % 3 - 1.5);
  for (const std::int64_t max_basis : {0, 24}) {
    DenseOperator op(*world_, testing::matrix_with_spectrum(values, 33));
    const EigenResult result =
        block_eigenvalues(op, {.top = 8, .bottom = 3, .max_basis = max_basis, .seed = 3, .block = 2});
    EXPECT_TRUE(result.converged);
    ASSERT_EQ(result.top.size(), 8U);
    expect_lists(result, values, 1e-10);
  }
}

TEST_F(BlockEigenvalues, ThickRestartsFindTheSameInLittleMemory) {
  const at::Tensor matrix = testing::gaussian_matrix(200, 34);
  const at::Tensor exact = at::linalg_eigvalsh(matrix);
  const std::vector<double> values(exact.const_data_ptr<double>(), exact.const_data_ptr<double>() + 200);
  for (const EigenOptions& options :
       {EigenOptions{.top = 6, .bottom = 4, .max_steps = 2000, .max_basis = 40, .rtol = 1e-8, .seed = 4, .block = 3},
        EigenOptions{.top = 2, .max_steps = 2000, .max_basis = 30, .rtol = 1e-8, .seed = 4, .block = 6},
        EigenOptions{.top = 0, .magnitude = 7, .max_steps = 2000, .max_basis = 40, .rtol = 1e-8, .block = 4}}) {
    DenseOperator op(*world_, matrix);
    VectorSource vectors;
    const EigenResult result = block_eigenvalues(op, options, &vectors);
    EXPECT_TRUE(result.converged);
    EXPECT_GT(result.thick_restarts, 0);
    EXPECT_EQ(static_cast<std::int64_t>(result.top.size() + result.bottom.size() + result.magnitude.size()),
              options.top + options.bottom + options.magnitude);
    expect_lists(result, values, 1e-9);
    std::size_t i = 0;
    for (const auto* list : {&result.top, &result.bottom, &result.magnitude})
      for (const EigenEstimate& one : *list) {
        const at::Tensor y = gathered(op, vectors(i++));
        EXPECT_NEAR(at::norm(y).item<double>(), 1, 1e-10);
        EXPECT_LE(at::norm(at::mv(matrix, y) - one.value * y).item<double>(), one.residual + 1e-12);
      }
  }
}

TEST_F(BlockEigenvalues, Float32IsGoodToItsRounding) {
  std::vector<double> values;
  for (int i = 0; i < 120; ++i) values.push_back(i < 3 ? 10 : std::cos(i));
  DenseOperator op(*world_, testing::matrix_with_spectrum(values, 35).to(at::kFloat));
  const EigenResult result =
      block_eigenvalues(op, {.top = 4, .bottom = 1, .max_basis = 60, .rtol = 1e-5, .seed = 5, .block = 3});
  EXPECT_TRUE(result.converged);
  expect_lists(result, values, 2e-5);
}

TEST_F(BlockEigenvalues, SmallSpacesAreExhausted) {
  const std::vector<double> values = {3, 1, -2};
  DenseOperator op(*world_, testing::matrix_with_spectrum(values, 36));
  const EigenResult result = block_eigenvalues(op, {.top = 2, .bottom = 9, .block = 8});
  EXPECT_TRUE(result.exhausted);
  ASSERT_EQ(result.top.size(), 2U);
  ASSERT_EQ(result.bottom.size(), 1U);
  expect_lists(result, values, 1e-12);
}

TEST_F(BlockEigenvalues, SpentProductsAreNotPassed) {
  DenseOperator op(*world_, testing::gaussian_matrix(150, 37));
  const EigenResult result = block_eigenvalues(op, {.top = 5, .max_steps = 13, .rtol = 1e-10, .block = 4});
  EXPECT_FALSE(result.converged);
  EXPECT_EQ(result.steps, 13);
  EXPECT_EQ(op.products, 13);
  EXPECT_EQ(result.top.size(), 5U);
}

TEST_F(BlockEigenvalues, ResultsDoNotDependOnRanks) {
  LocalCommunicator alone;
  const at::Tensor matrix = testing::gaussian_matrix(157, 38);
  DenseOperator one(alone, matrix), many(*world_, matrix);
  const EigenOptions options{.top = 5, .max_basis = 40, .rtol = 1e-6, .seed = 6, .block = 3};
  const EigenResult a = block_eigenvalues(one, options), b = block_eigenvalues(many, options);
  EXPECT_EQ(a.steps, b.steps);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(a.top[i].value, b.top[i].value, 1e-11);
}

TEST_F(BlockEigenvalues, WhatCantBeIsRefused) {
  DenseOperator op(*world_, testing::gaussian_matrix(50, 39));
  EXPECT_THROW(block_eigenvalues(op, {.top = 5, .block = 0}), UsageError);
  EXPECT_THROW(block_eigenvalues(op, {.top = 5, .max_basis = 8, .block = 2}), UsageError);
  EXPECT_THROW(block_eigenvalues(op, {.top = 5, .magnitude = 3, .block = 2}), UsageError);
}

}  // namespace
}  // namespace hesspect::block_eigenvalues_test
