#include "hesspect/krylov/lanczos.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/tridiagonal_eigen.h"
#include "krylov/test_operators.h"

namespace hesspect::lanczos_test {
namespace {

using testing::DenseOperator;
using testing::DiagonalOperator;
using testing::gaussian_matrix;
using testing::matrix_with_spectrum;
using testing::pattern_vector;
using testing::RotatedDiagonalOperator;

LocalCommunicator local;

TEST(Lanczos, FullRunHasTheMatrixsEigenvalues) {
  const at::Tensor matrix = gaussian_matrix(60, 3);
  DenseOperator op(local, matrix);
  Lanczos run(op, pattern_vector(op));
  EXPECT_EQ(run.extend(op, 1000), 60);
  EXPECT_EQ(op.products, 60);
  EXPECT_TRUE(run.t().breakdown());
  EXPECT_TRUE(run.t().complete());
  const at::Tensor expected = at::linalg_eigvalsh(matrix);
  const std::vector<RitzPair> pairs = run.t().ritz_pairs();
  for (std::int64_t i = 0; i < 60; ++i)
    EXPECT_NEAR(pairs[static_cast<std::size_t>(i)].value, expected[i].item<double>(), 1e-12);
  EXPECT_LT(run.orthogonality_loss(), 1e-13);
}

TEST(Lanczos, KeepsItsFactorisation) {  // A Q = Q T + β q eᵀ, through the Ritz vectors' true residuals
  const at::Tensor matrix = gaussian_matrix(200, 4);
  DenseOperator op(local, matrix);
  Lanczos run(op, pattern_vector(op));
  run.extend(op, 30);
  const TridiagonalEigen eigen = tridiagonal_eigen(run.t().alpha, run.t().beta, true);
  for (std::size_t i = 0; i < 30; i += 7) {
    const at::Tensor y = run.ritz_vector(std::span(eigen.vectors).subspan(i * 30, 30));
    EXPECT_NEAR(norm_sq(y), 1, 1e-12);
    const double residual = (at::mv(matrix, y) - eigen.values[i] * y).norm().item<double>();
    EXPECT_NEAR(residual, std::abs(run.t().beta.back() * eigen.last[i]), 1e-12);
  }
}

TEST(Lanczos, ExtendingInPartsIsTheSameRun) {
  RotatedDiagonalOperator op(local, 5000, at::kDouble,
                             [](std::int64_t i) { return 1.0 / (1 + static_cast<double>(i)); });
  Lanczos whole(op, pattern_vector(op)), parts(op, pattern_vector(op));
  whole.extend(op, 40);
  std::int64_t seen = 0;
  for (const std::int64_t steps : {1, 2, 17, 20})
    parts.extend(op, steps, [&](const Lanczos& run) { seen = run.steps(); });
  EXPECT_EQ(seen, 40);
  EXPECT_EQ(whole.t().alpha, parts.t().alpha);
  EXPECT_EQ(whole.t().beta, parts.t().beta);
}

TEST(Lanczos, EigenvectorAsStartBreaksDownAtOnce) {
  DiagonalOperator op(local, 100, at::kDouble, [](std::int64_t i) { return static_cast<double>(i); });
  at::Tensor start = at::zeros({100}, at::kDouble);
  start[42] = -3.0;
  Lanczos run(op, start);
  EXPECT_EQ(run.extend(op, 10), 1);
  EXPECT_TRUE(run.t().breakdown());
  EXPECT_EQ(run.t().alpha[0], 42);
  EXPECT_EQ(run.t().beta.back(), 0);
  EXPECT_EQ(run.t().start_norm_sq, 9);
  EXPECT_EQ(run.extend(op, 10), 0);
}

TEST(Lanczos, StartInAnInvariantSubspace) {
  std::vector<double> values(80);
  for (std::size_t i = 0; i < 80; ++i) values[i] = std::cos(static_cast<double>(i));
  at::manual_seed(8);
  const at::Tensor q = std::get<0>(at::linalg_qr(at::randn({80, 80}, at::kDouble)));
  const at::Tensor a = at::mm(q * at::tensor(values, at::kDouble), q.t());
  DenseOperator op(local, (a + a.t()) / 2);
  // A sum of five eigenvectors: the Krylov space has five dimensions.
  Lanczos run(op, q.narrow(1, 10, 5).sum(1).contiguous());
  EXPECT_EQ(run.extend(op, 30), 5);
  EXPECT_TRUE(run.t().breakdown());
  EXPECT_FALSE(run.t().complete());
  std::vector<double> expected(values.begin() + 10, values.begin() + 15);
  std::sort(expected.begin(), expected.end());
  const std::vector<RitzPair> pairs = run.t().ritz_pairs();
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(pairs[i].value, expected[i], 1e-13);
    EXPECT_LT(pairs[i].residual, 1e-13);
  }
}

TEST(Lanczos, ZeroAndIdentity) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
    for (const double value : {0.0, 1.0, -1e-30}) {
      DiagonalOperator op(local, 1000, dtype, [value](std::int64_t) { return value; });
      Lanczos run(op, pattern_vector(op));
      EXPECT_EQ(run.extend(op, 20), 1) << value;
      EXPECT_TRUE(run.t().breakdown());
      EXPECT_NEAR(run.t().alpha[0], value, 1e-6 * std::abs(value));
    }
}

TEST(Lanczos, DistinctEigenvaluesCountTheSteps) {  // three distinct values: closes after three steps, whatever n
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    DiagonalOperator op(local, 20000, dtype, [](std::int64_t i) { return static_cast<double>(i % 3); });
    Lanczos run(op, pattern_vector(op));
    EXPECT_EQ(run.extend(op, 20), 3);
    EXPECT_TRUE(run.t().breakdown());
  }
}

TEST(Lanczos, FewerDimensionsThanSteps) {
  for (const std::int64_t n : {1, 2, 3}) {
    DiagonalOperator op(local, n, at::kDouble, [](std::int64_t i) { return 1.0 + static_cast<double>(i); });
    Lanczos run(op, pattern_vector(op));
    EXPECT_EQ(run.extend(op, 10), n);
    EXPECT_TRUE(run.t().complete());
  }
}

TEST(Lanczos, RestartFindsWhatIsLeft) {
  const at::Tensor matrix = matrix_with_spectrum({5, 5, 5, 1, 1, -2, -2, -2, 0.5, 7}, 5);
  DenseOperator op(local, matrix);
  Lanczos run(op, pattern_vector(op));
  run.extend(op, 100);
  EXPECT_EQ(run.steps(), 5);
  double phase = 1;
  while (!run.t().complete()) {
    ASSERT_TRUE(run.t().breakdown());
    ASSERT_TRUE(run.restart(pattern_vector(op, phase)));
    run.extend(op, 100);
    phase += 1;
  }
  EXPECT_EQ(run.steps(), 10);
  EXPECT_EQ(run.t().blocks.size(), 3U);
  EXPECT_FALSE(run.restart(pattern_vector(op, 9)));
  EXPECT_LT(run.orthogonality_loss(), 1e-13);
  const at::Tensor expected = at::linalg_eigvalsh(matrix);
  const std::vector<RitzPair> pairs = run.t().ritz_pairs();
  for (std::int64_t i = 0; i < 10; ++i)
    EXPECT_NEAR(pairs[static_cast<std::size_t>(i)].value, expected[i].item<double>(), 1e-13);
}

TEST(Lanczos, WithoutReorthogonalisationThreeVectorsAreKept) {
  DiagonalOperator op(local, 20000, at::kDouble, [](std::int64_t i) {
    return i < 3 ? 10.0 + static_cast<double>(i) : 1e-4 * static_cast<double>(i);
  });
  LanczosOptions none;
  none.reorthogonalisation = Reorthogonalisation::kNone;
  Lanczos cheap(op, pattern_vector(op), none), full(op, pattern_vector(op));
  cheap.extend(op, 100);
  full.extend(op, 100);
  EXPECT_EQ(cheap.basis_bytes(), 2 * 20000 * 8);
  for (std::size_t i = 0; i < 8; ++i) {  // the same until orthogonality is lost
    EXPECT_NEAR(cheap.t().alpha[i], full.t().alpha[i], 1e-6);
    EXPECT_NEAR(cheap.t().beta[i], full.t().beta[i], 1e-6);
  }
  EXPECT_NEAR(cheap.t().ritz_pairs().back().value, 12, 1e-10);
  const auto copies = [](const Lanczos& run) {
    int count = 0;
    for (const RitzPair& pair : run.t().ritz_pairs()) count += std::abs(pair.value - 12) < 1e-8;
    return count;
  };
  EXPECT_EQ(copies(full), 1);
  EXPECT_GT(copies(cheap), 1);  // the ghosts that full re-orthogonalisation is for
  EXPECT_THROW(cheap.orthogonality_loss(), Error);
}

// One pair of rows among forty, wherever it is, and a row of the wrong length.
TEST(Lanczos, OrthogonalityLossFindsASinglePair) {
  DiagonalOperator op(local, 3000, at::kDouble, [](std::int64_t i) { return static_cast<double>(i); });
  Lanczos run(op, pattern_vector(op));
  run.extend(op, 40);
  EXPECT_LT(run.orthogonality_loss(), 1e-13);
  EXPECT_EQ(run.extend(op, 1), 1);  // measuring leaves the run as it is
  const LanczosRecord record = run.record();
  const auto loss_with = [&](std::int64_t wrong, std::int64_t by, double part) {
    const StoredVectors stored{[&](std::int64_t row) {
                                 at::Tensor vector = run.stored().basis(row).clone();
                                 if (row == wrong) vector.add_(run.stored().basis(by), part);
                                 return vector;
                               },
                               [&](std::int64_t i) { return run.stored().running(i); }};
    Lanczos again = Lanczos::resumed(op, record, stored);
    again.extend(op, 41);
    return again.orthogonality_loss();
  };
  for (const auto& [wrong, by] : {std::pair(17, 3), {3, 17}, {0, 40}, {40, 39}, {1, 0}})
    EXPECT_NEAR(loss_with(wrong, by, 1e-6), 1e-6, 1e-11) << wrong << ", " << by;
  EXPECT_NEAR(loss_with(5, 5, 1e-6), 2e-6, 1e-11);
}

TEST(Lanczos, NonFiniteProductsAreErrorsWithTheirStep) {
  class Failing : public DiagonalOperator {
   public:
    Failing() : DiagonalOperator(local, 100, at::kFloat, [](std::int64_t i) { return static_cast<double>(i); }) {}
    void apply(const at::Tensor& x, at::Tensor& y) override {
      DiagonalOperator::apply(x, y);
      if (products == 4) y[7] = std::numeric_limits<double>::infinity();
    }
  } op;
  Lanczos run(op, pattern_vector(op));
  try {
    run.extend(op, 10);
    FAIL();
  } catch (const NumericalError& error) {
    EXPECT_EQ(error.step, 3);
    EXPECT_FALSE(std::isfinite(error.value));
  }
}

TEST(Lanczos, UnusableStartVectors) {
  DiagonalOperator op(local, 10, at::kDouble, [](std::int64_t) { return 1.0; });
  EXPECT_THROW(Lanczos(op, at::zeros({10}, at::kDouble)), NumericalError);
  EXPECT_THROW(Lanczos(op, at::full({10}, std::nan(""), at::kDouble)), NumericalError);
  EXPECT_THROW(Lanczos(op, at::ones({9}, at::kDouble)), Error);
}

TEST(Lanczos, HugeAndTinyScales) {
  for (const double scale : {1e-12, 1e12}) {
    DiagonalOperator op(local, 500, at::kDouble,
                        [scale](std::int64_t i) { return scale * std::cos(static_cast<double>(i)); });
    Lanczos run(op, pattern_vector(op));
    EXPECT_EQ(run.extend(op, 60), 60);
    EXPECT_NEAR(run.t().ritz_pairs().back().value / scale, 1, 1e-3);
  }
}

}  // namespace
}  // namespace hesspect::lanczos_test
