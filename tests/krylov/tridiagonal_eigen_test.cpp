#include "hesspect/krylov/tridiagonal_eigen.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace hesspect::tridiagonal_eigen_test {
namespace {

// The second-difference matrix: eigenvalues 2 − 2 cos(kπ/(m+1)), eigenvectors √(2/(m+1)) sin(ikπ/(m+1)).
TEST(TridiagonalEigen, SecondDifferences) {
  for (const std::size_t m : std::vector<std::size_t>{1, 2, 3, 50, 200}) {
    const std::vector<double> alpha(m, 2.0), beta(m, -1.0);
    const TridiagonalEigen eigen = tridiagonal_eigen(alpha, beta, true);
    ASSERT_EQ(eigen.values.size(), m);
    const double angle = std::numbers::pi / static_cast<double>(m + 1);
    for (std::size_t k = 0; k < m; ++k) {
      EXPECT_NEAR(eigen.values[k], 2 - 2 * std::cos(static_cast<double>(k + 1) * angle), 1e-13);
      const double component =
          std::sqrt(2.0 / static_cast<double>(m + 1)) * std::sin(static_cast<double>(k + 1) * angle);
      EXPECT_NEAR(std::abs(eigen.first[k]), std::abs(component), 1e-13);
      EXPECT_NEAR(std::abs(eigen.last[k]), std::abs(component), 1e-13);
    }
  }
}

TEST(TridiagonalEigen, ResidualsAndOrthogonality) {
  const std::size_t m = 40;
  std::vector<double> alpha(m), beta(m);
  for (std::size_t i = 0; i < m; ++i) {  // graded over ten orders of magnitude
    alpha[i] = std::pow(10.0, -static_cast<double>(i) / 4);
    beta[i] = 0.3 * std::pow(10.0, -static_cast<double>(i) / 4);
  }
  const TridiagonalEigen eigen = tridiagonal_eigen(alpha, beta, true);
  for (std::size_t k = 0; k < m; ++k) {
    const double* s = eigen.vectors.data() + k * m;
    for (std::size_t i = 0; i < m; ++i) {
      double product = alpha[i] * s[i];
      if (i > 0) product += beta[i - 1] * s[i - 1];
      if (i + 1 < m) product += beta[i] * s[i + 1];
      EXPECT_NEAR(product, eigen.values[k] * s[i], 1e-14);
    }
    EXPECT_EQ(eigen.first[k], s[0]);
    EXPECT_EQ(eigen.last[k], s[m - 1]);
    if (k > 0) {
      EXPECT_LE(eigen.values[k - 1], eigen.values[k]);
    }
  }
}

TEST(TridiagonalEigen, LargeWithoutVectorsAgreesWithDense) {
  const std::size_t m = 700;
  std::vector<double> alpha(m), beta(m);
  for (std::size_t i = 0; i < m; ++i) {
    alpha[i] = i < 5 ? 50.0 * static_cast<double>(i + 1) : std::sin(1.7 * static_cast<double>(i));
    beta[i] = i == 300 ? 0 : 0.5 + 0.4 * std::cos(2.3 * static_cast<double>(i));  // 300: two blocks
  }
  const TridiagonalEigen dense = tridiagonal_eigen(alpha, beta, true), large = tridiagonal_eigen(alpha, beta);
  ASSERT_EQ(large.values.size(), m);
  EXPECT_TRUE(large.vectors.empty());
  for (std::size_t i = 0; i < m; ++i) {
    EXPECT_NEAR(large.values[i], dense.values[i], 1e-11);
    EXPECT_NEAR(std::abs(large.first[i]), std::abs(dense.first[i]), 1e-10);
    EXPECT_NEAR(std::abs(large.last[i]), std::abs(dense.last[i]), 1e-10);
  }
}

TEST(TridiagonalEigen, Empty) { EXPECT_TRUE(tridiagonal_eigen({}, {}).values.empty()); }

}  // namespace
}  // namespace hesspect::tridiagonal_eigen_test
