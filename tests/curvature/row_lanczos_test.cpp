// Lanczos on many matrices side by side, against spectra that are known: each row ends when it may, whatever the others
// do.
#include "../../src/curvature/row_lanczos.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace hesspect::row_lanczos_test {
namespace {

/// Symmetric matrices [rows, d, d] of these spectra, in random bases.
at::Tensor matrices(const std::vector<std::vector<double>>& spectra) {
  std::vector<at::Tensor> all;
  for (const std::vector<double>& spectrum : spectra) {
    const auto d = static_cast<std::int64_t>(spectrum.size());
    const at::Tensor q = std::get<0>(at::linalg_qr(at::randn({d, d}, at::kDouble)));
    all.push_back(at::mm(q * at::tensor(spectrum, at::kDouble), q.t()));
  }
  return at::stack(all);
}

RowEigenvalues eigenvalues(const at::Tensor& a, double rtol, std::int64_t most) {
  const auto product = [&](const at::Tensor& v) { return at::bmm(a, v.unsqueeze(2)).squeeze(2); };
  return row_lanczos(product, at::randn({a.size(0), a.size(1)}, a.options()), rtol, most);
}

TEST(RowLanczos, FindsBothEndsOfEveryRow) {
  at::manual_seed(3);
  const at::Tensor a = matrices({{5, 4, 3, 2, 1, 0.5, 0.1, -1},     // positive end
                                 {2, 1, 0, 0, 0, 0, 0, -7},         // negative one; four times zero
                                 {-1, -2, -3, -4, -5, -6, -7, -8},  // all negative
                                 {3, 0, 0, 0, 0, 0, 0, 0},          // rank 1: closes after two steps
                                 {0, 0, 0, 0, 0, 0, 0, 0},          // closes after one
                                 {2, 2, 2, 2, 2, 2, 2, 2},          // likewise
                                 {1e-9, 0, 0, 0, 0, 0, 0, -3e-9}});
  const at::Tensor largest = at::tensor({5.0, 2.0, -1.0, 3.0, 0.0, 2.0, 1e-9}, at::kDouble);
  const at::Tensor magnitude = at::tensor({5.0, -7.0, -8.0, 3.0, 0.0, 2.0, -3e-9}, at::kDouble);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const double unit = dtype == at::kDouble ? 1e-13 : 1e-5;
    const RowEigenvalues found = eigenvalues(a.to(dtype), unit, 100);
    EXPECT_EQ(found.products, 8);
    EXPECT_TRUE(((found.largest - largest).abs() <= unit * magnitude.abs()).all().item<bool>()) << found.largest;
    EXPECT_TRUE(((found.magnitude - magnitude).abs() <= unit * magnitude.abs()).all().item<bool>()) << found.magnitude;
    EXPECT_TRUE(found.converged.all().item<bool>());
  }
}

TEST(RowLanczos, BoundsHoldWhereStepsAreFew) {
  at::manual_seed(4);
  std::vector<double> spectrum;
  for (int i = 0; i < 60; ++i) spectrum.push_back(std::pow(i + 1.0, -0.5));
  const at::Tensor a = matrices({spectrum, spectrum, spectrum, spectrum});
  for (const std::int64_t most : {1, 3, 7, 9}) {
    const RowEigenvalues found = eigenvalues(a, 1e-6, most);
    EXPECT_EQ(found.products, most);
    // Of some eigenvalue: which one, no residual tells.
    const at::Tensor distance = (found.largest.unsqueeze(1) - at::tensor(spectrum, at::kDouble)).abs().amin(1);
    EXPECT_TRUE((distance <= found.largest_error).all().item<bool>());
    EXPECT_TRUE((found.largest <= 1 + 1e-14).all().item<bool>());
    EXPECT_FALSE(found.converged.any().item<bool>());
  }
  const RowEigenvalues all = eigenvalues(a, 1e-6, 60);
  EXPECT_LT(all.products, 60);
  EXPECT_TRUE(((all.largest - 1).abs() <= 1e-6).all().item<bool>());
}

TEST(RowLanczos, OfOneNumber) {
  const RowEigenvalues found = eigenvalues(at::tensor({-2.0, 3.0}, at::kDouble).view({2, 1, 1}), 1e-3, 50);
  EXPECT_EQ(found.products, 1);
  EXPECT_DOUBLE_EQ(found.largest[0].item<double>(), -2);
  EXPECT_DOUBLE_EQ(found.magnitude[1].item<double>(), 3);
}

}  // namespace
}  // namespace hesspect::row_lanczos_test
