#include "hesspect/spectrum/eigenvalues.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/tridiagonal_eigen.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/second_pass.h"
#include "krylov/test_operators.h"
#include "spectrum/run_probe.h"

namespace hesspect::eigenvalues_test {
namespace {

using testing::DenseOperator;
using testing::DiagonalOperator;
using testing::matrix_with_spectrum;

LocalCommunicator local;

Lanczos fresh_run(LinearOperator& op, std::uint64_t probe = 0) {
  return Lanczos(op, probe_vector(op, ProbeDistribution::kRademacher, 3, probe));
}

/// All eigenvalues, largest first, by LAPACK.
std::vector<double> descending(const at::Tensor& matrix) {
  const at::Tensor values = at::linalg_eigvalsh(matrix).flip(0).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

void expect_ends(const EigenResult& result, const std::vector<double>& all, double tolerance) {
  for (std::size_t i = 0; i < result.top.size(); ++i) EXPECT_NEAR(result.top[i].value, all[i], tolerance) << i;
  for (std::size_t i = 0; i < result.bottom.size(); ++i)
    EXPECT_NEAR(result.bottom[i].value, all[all.size() - result.bottom.size() + i], tolerance) << i;
}

TEST(Eigenvalues, RandomDenseMatrix) {
  const at::Tensor matrix = testing::gaussian_matrix(400, 21);
  DenseOperator op(local, matrix);
  Lanczos run = fresh_run(op);
  const EigenResult result = eigenvalues(op, run, {.top = 10, .bottom = 5, .max_steps = 400});
  EXPECT_TRUE(result.converged);
  EXPECT_FALSE(result.exhausted);
  ASSERT_EQ(result.top.size(), 10U);
  ASSERT_EQ(result.bottom.size(), 5U);
  EXPECT_EQ(result.steps, op.products);
  EXPECT_LT(result.steps, 350);
  expect_ends(result, descending(matrix), 1e-9);
}

TEST(Eigenvalues, BoundsHold) {  // each reported value is within its bound of an eigenvalue, converged or not
  const at::Tensor matrix = testing::gaussian_matrix(300, 22);
  DenseOperator op(local, matrix);
  Lanczos run = fresh_run(op);
  const EigenResult result = eigenvalues(op, run, {.top = 20, .bottom = 20, .max_steps = 60});
  EXPECT_FALSE(result.converged);
  EXPECT_EQ(result.steps, 60);
  const std::vector<double> all = descending(matrix);
  for (const auto& list : {result.top, result.bottom})
    for (const EigenEstimate& estimate : list) {
      double nearest = 1e9;
      for (const double value : all) nearest = std::min(nearest, std::abs(value - estimate.value));
      EXPECT_LE(nearest, estimate.residual + 1e-12);
    }
}

// The bound |β s| of a converged pair is far below what float32 leaves of its true residual; the reported one is not.
TEST(Eigenvalues, ReportedResidualsCoverRounding) {
  const at::Tensor matrix = testing::gaussian_matrix(300, 24).to(at::kFloat);
  DenseOperator op(local, matrix);
  Lanczos run = fresh_run(op);
  const EigenResult result = eigenvalues(op, run, {.top = 5, .bottom = 0, .max_steps = 290, .rtol = 1e-6});
  ASSERT_EQ(result.top.size(), 5U);
  const std::vector<double> beta(run.t().beta.begin(), run.t().beta.end() - 1);
  const TridiagonalEigen eigen = tridiagonal_eigen(run.t().alpha, beta, true);
  const std::size_t m = run.t().alpha.size();
  for (std::size_t i = 0; i < 5; ++i) {
    const std::size_t column = m - 1 - i;
    std::vector<double> s(m);
    for (std::size_t j = 0; j < m; ++j) s[j] = eigen.vectors[column * m + j];
    const at::Tensor y = run.ritz_vector(s).to(at::kDouble);
    const at::Tensor residual = at::mv(matrix.to(at::kDouble), y) - eigen.values[column] * y;
    EXPECT_LE(residual.norm().item<double>(), result.top[i].residual);
    EXPECT_LE(result.top[i].residual, 1e-4 * run.t().scale());
  }
}

TEST(Eigenvalues, AProbesProductsAreUsed) {
  const at::Tensor matrix = testing::gaussian_matrix(300, 23);
  DenseOperator op(local, matrix);
  ProbeRun probe = run_probe(op, 0, {.steps = 80});
  EXPECT_EQ(op.products, 80);
  std::int64_t last = 0;
  const EigenResult result =
      eigenvalues(op, *probe.lanczos, {.top = 3, .bottom = 0}, [&](const Lanczos& run) { last = run.steps(); });
  EXPECT_TRUE(result.converged);
  EXPECT_EQ(result.steps, op.products);
  EXPECT_TRUE(last == 0 || last == op.products);
  expect_ends(result, descending(matrix), 1e-9);
  EXPECT_EQ(probe.quadrature.alpha.size(), 80U);
}

TEST(Eigenvalues, MoreWantedThanThereAre) {
  const at::Tensor matrix = testing::gaussian_matrix(15, 24);
  DenseOperator op(local, matrix);
  const std::vector<double> all = descending(matrix);
  Lanczos run = fresh_run(op);
  const EigenResult everything = eigenvalues(op, run, {.top = 50, .bottom = 0});
  EXPECT_EQ(everything.top.size(), 15U);
  EXPECT_TRUE(everything.converged);
  EXPECT_TRUE(everything.exhausted);
  expect_ends(everything, all, 1e-12);

  // Overlapping ends: together the whole spectrum, each eigenvalue once.
  Lanczos both = fresh_run(op);
  const EigenResult split = eigenvalues(op, both, {.top = 10, .bottom = 10});
  EXPECT_EQ(split.top.size(), 10U);
  EXPECT_EQ(split.bottom.size(), 5U);
  EXPECT_TRUE(split.converged);
  EXPECT_TRUE(split.exhausted);
  expect_ends(split, all, 1e-12);
}

TEST(Eigenvalues, MultipleEigenvaluesAfterBreakdown) {
  const at::Tensor matrix = matrix_with_spectrum({5, 5, 5, 1, 1, -2, -2, -2, 0.5, 7, 0, 0, 0, 0, 0}, 25);
  DenseOperator op(local, matrix);
  Lanczos run = fresh_run(op);
  const EigenResult result = eigenvalues(op, run, {.top = 5, .bottom = 4});
  EXPECT_TRUE(result.converged);
  ASSERT_EQ(result.top.size(), 5U);
  ASSERT_EQ(result.bottom.size(), 4U);
  expect_ends(result, descending(matrix), 1e-11);
}

// In float32 the space of four distinct eigenvalues closed with β ≈ 1e-5 of the scale, no breakdown: the run went on
// as one block, and ended with 3 × 0.35 and converged = true as soon as the wanted pairs had converged.
TEST(Eigenvalues, MultipleEigenvaluesInFloat32) {
  std::vector<double> values(30, 0.0);
  for (std::size_t i = 0; i < 10; ++i) values[i] = i < 4 ? 0.4629 : i < 8 ? 0.3504 : 0.3055;
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    for (const double noise : {0.0, 1e-6, 4e-6}) {  // symmetric, as a float32 network's product has it
      const at::Tensor exact = matrix_with_spectrum(values, seed);
      DenseOperator op(local, (exact + noise * testing::gaussian_matrix(30, seed)).to(at::kFloat));
      Lanczos run = fresh_run(op, seed);
      const EigenResult result = eigenvalues(op, run, {.top = 8});
      EXPECT_TRUE(result.converged);
      ASSERT_EQ(result.top.size(), 8U);
      for (std::size_t i = 0; i < 8; ++i)
        EXPECT_NEAR(result.top[i].value, values[i], 2e-6 + 2 * noise) << seed << ", " << noise << ": " << i;
    }
}

// Outliers over a bulk 1e-5 as wide: there β is of rounding's size too, and costs a few products, not a multiple.
TEST(Eigenvalues, NarrowBulkInFloat32TakesFewMoreSteps) {
  const auto value = [](std::int64_t i) {
    return i < 8 ? 20.0 - static_cast<double>(i) : 1e-4 * std::sin(static_cast<double>(i));
  };
  DiagonalOperator op(local, 24'058, at::kFloat, value);
  Lanczos run = fresh_run(op);
  const EigenResult result = eigenvalues(op, run, {.top = 8});
  EXPECT_TRUE(result.converged);
  EXPECT_LE(result.steps, 20);  // 11 without looking for copies
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(result.top[i].value, value(static_cast<std::int64_t>(i)), 1e-5);
}

// `converged` left out the rounding that `residual` counts: at rtol = 0 that is all there is to wait for.
TEST(Eigenvalues, ConvergedCountsRounding) {
  DenseOperator op(local, testing::gaussian_matrix(300, 24).to(at::kFloat));
  Lanczos run = fresh_run(op);
  for (int looks = 0; looks < 10; ++looks) {
    run.extend(op, 20);
    const EigenResult result = eigenvalues_so_far(run, {.top = 5, .rtol = 1e-7});
    for (const EigenEstimate& one : result.top) EXPECT_EQ(one.converged, one.residual <= 2 * run.rounding());
  }
  EXPECT_TRUE(eigenvalues(op, run, {.top = 5, .rtol = 0}).converged);
}

// With three pairs of nine wanted, all three stood in `top`, the smallest too.
TEST(Eigenvalues, TooFewSoFarAreShared) {
  DenseOperator op(local, testing::gaussian_matrix(100, 26));
  Lanczos run = fresh_run(op);
  run.extend(op, 3);
  const EigenResult result = eigenvalues_so_far(run, {.top = 6, .bottom = 3});
  ASSERT_EQ(result.top.size(), 2U);
  ASSERT_EQ(result.bottom.size(), 1U);
  EXPECT_LT(result.bottom[0].value, result.top[1].value);
  EXPECT_FALSE(result.converged);
}

TEST(Eigenvalues, IdentityAndZeroOfAMillionDimensions) {
  for (const double value : {0.0, 2.0}) {
    DiagonalOperator op(local, 1'000'000, at::kFloat, [value](std::int64_t) { return value; });
    Lanczos run = fresh_run(op);
    const EigenResult result = eigenvalues(op, run, {.top = 4, .bottom = 0});
    EXPECT_TRUE(result.converged);
    ASSERT_EQ(result.top.size(), 4U);
    for (const EigenEstimate& estimate : result.top) EXPECT_NEAR(estimate.value, value, 1e-6);
    EXPECT_LE(result.steps, 6);
  }
}

TEST(Eigenvalues, OneDimension) {
  DiagonalOperator op(local, 1, at::kDouble, [](std::int64_t) { return -3.0; });
  Lanczos run = fresh_run(op);
  const EigenResult result = eigenvalues(op, run, {.top = 1, .bottom = 1});
  ASSERT_EQ(result.top.size(), 1U);
  EXPECT_EQ(result.top[0].value, -3);
  EXPECT_TRUE(result.bottom.empty());
}

TEST(Eigenvalues, LargestMagnitudes) {
  const at::Tensor matrix = testing::gaussian_matrix(300, 27) - 0.05 * at::eye(300, at::kDouble);
  DenseOperator op(local, matrix);
  std::vector<double> all = descending(matrix);
  std::ranges::sort(all, [](double a, double b) { return std::abs(a) > std::abs(b); });
  for (const std::int64_t max_basis : {0, 30}) {
    Lanczos run = fresh_run(op);
    const EigenResult result =
        eigenvalues(op, run, {.top = 0, .magnitude = 9, .max_steps = 1000, .max_basis = max_basis});
    EXPECT_TRUE(result.converged);
    EXPECT_TRUE(result.top.empty() && result.bottom.empty());
    ASSERT_EQ(result.magnitude.size(), 9U);
    int negative = 0;
    for (std::size_t i = 0; i < 9; ++i) {
      EXPECT_NEAR(result.magnitude[i].value, all[i], 1e-9) << i;
      negative += result.magnitude[i].value < 0;
    }
    EXPECT_GT(negative, 0);
    EXPECT_LT(negative, 9);
    EXPECT_EQ(result.thick_restarts > 0, max_basis > 0);
  }
  Lanczos run = fresh_run(op);
  run.extend(op, 4);
  const EigenResult few = eigenvalues_so_far(run, {.top = 0, .magnitude = 9});
  EXPECT_EQ(few.magnitude.size(), 4U);
  EXPECT_FALSE(few.converged);
}

/// y_i of a source, as rows [count, n].
at::Tensor stacked(const VectorSource& vectors, std::size_t count) {
  std::vector<at::Tensor> rows;
  for (std::size_t i = 0; i < count; ++i) rows.push_back(vectors(i).to(at::kDouble));
  return at::stack(rows);
}

// A basis of 36 rows finds what 300 find, its vectors included.
TEST(Eigenvalues, ThickRestartsFindTheSame) {
  const at::Tensor matrix = testing::gaussian_matrix(400, 28);
  DenseOperator op(local, matrix);
  const std::vector<double> all = descending(matrix);
  const EigenOptions options{.top = 10, .bottom = 5, .max_steps = 1500, .max_basis = 36};
  Lanczos run = fresh_run(op);
  EigenPairs result = eigenvalues(op, run, options);
  EXPECT_TRUE(result.converged);
  EXPECT_GT(result.thick_restarts, 5);
  EXPECT_EQ(result.steps, op.products);
  EXPECT_EQ(run.basis_bytes(), 36 * 400 * 8);
  EXPECT_LT(result.steps, 600);
  ASSERT_EQ(result.top.size(), 10U);
  ASSERT_EQ(result.bottom.size(), 5U);
  expect_ends(result, all, 1e-9);

  const VectorSource vectors = eigenvectors(run, result);
  const at::Tensor y = stacked(vectors, 15);
  EXPECT_LT((at::mm(y, y.t()) - at::eye(15, at::kDouble)).abs().max().item<double>(), 1e-12);
  int steps = 0;
  measure_residuals(op, vectors, result, 4, [&] { ++steps; });
  EXPECT_EQ(steps, 4);
  EXPECT_EQ(result.residual_products, 15);
  EXPECT_EQ(op.products, result.steps + 15);
  std::vector<EigenEstimate> listed = result.top;
  listed.insert(listed.end(), result.bottom.begin(), result.bottom.end());
  for (std::int64_t i = 0; i < 15; ++i) {
    const EigenEstimate& one = listed[static_cast<std::size_t>(i)];
    EXPECT_NEAR(one.true_residual, (at::mv(matrix, y[i]) - one.value * y[i]).norm().item<double>(), 1e-13);
    EXPECT_LE(one.true_residual, one.residual + 1e-13);
    EXPECT_LE(one.residual, 2e-6);
    const double truth = i < 10 ? all[static_cast<std::size_t>(i)] : all[static_cast<std::size_t>(385 + i)];
    EXPECT_LE(std::abs(one.value - truth), one.error + 1e-13);  // and what LAPACK leaves
    EXPECT_LE(one.error, 1e-9);                                 // the residual's square
  }
}

// Without re-orthogonalisation, past the point where copies of the first eigenvalues have come up: a second pass gives
// the vectors of those that have converged, which only true residuals say.
TEST(Eigenvalues, VectorsBySecondPass) {
  std::vector<double> spectrum;
  for (int i = 0; i < 6; ++i) spectrum.push_back(40.0 - 5.0 * i);
  for (int i = 0; i < 294; ++i) spectrum.push_back(i / 294.0);
  const at::Tensor matrix = matrix_with_spectrum(spectrum, 5);
  DenseOperator op(local, matrix);
  const at::Tensor start = probe_vector(op, ProbeDistribution::kRademacher, 3, 0);
  const LanczosOptions none{.reorthogonalisation = Reorthogonalisation::kNone};
  Lanczos run(op, start, none);
  run.extend(op, 60);
  const std::vector<RitzPair> all = run.t().ritz_pairs();
  EXPECT_LT(all[all.size() - 1].value - all[all.size() - 2].value, 1e-9);  // a copy
  EigenPairs result = eigenvalues_so_far(run, {.top = 6, .max_steps = 60});
  ASSERT_EQ(result.top.size(), 6U);
  const std::int64_t before = op.products;
  int steps = 0;
  const SecondPass second = second_pass(op, start, none, result, [&] { ++steps; });
  const VectorSource& vectors = second.vectors;
  EXPECT_EQ(second.difference, 0);
  EXPECT_EQ(op.products - before, 59);
  EXPECT_EQ(steps, 59);
  const at::Tensor y = stacked(vectors, 6);
  EXPECT_LT((at::mm(y, y.t()) - at::eye(6, at::kDouble)).abs().max().item<double>(), 1e-8);
  measure_residuals(op, vectors, result, 2);
  for (std::int64_t i = 0; i < 6; ++i) {
    const EigenEstimate& one = result.top[static_cast<std::size_t>(i)];
    EXPECT_NEAR(one.value, 40.0 - 5.0 * static_cast<double>(i), 1e-9);
    EXPECT_NEAR(one.true_residual, (at::mv(matrix, y[i]) - one.value * y[i]).norm().item<double>(), 1e-12);
    EXPECT_LE(one.true_residual, 1e-6);
  }

  // Products that do not repeat: by the time copies come up, rounding has grown to the size of T's own entries.
  DenseOperator other(local, matrix * (1 + 1e-13));
  EXPECT_GT(second_pass(other, start, none, result).difference, 1e-3);
}

// The largest eigenvalue has next to no part in the start vector: the lists converge without it, and the run, which
// goes on for the trace's sake, finds it later. Vectors used to be those of the run as it stood by then, beside the
// values of before, and their residuals as large as the gap.
TEST(Eigenvalues, VectorsAreThoseOfTheValuesWhateverTheRunHasDoneSince) {
  const std::int64_t n = 300;
  DiagonalOperator op(local, n, at::kDouble, [](std::int64_t i) {
    return i == 0 ? 20.0 : i < 4 ? 10.0 + static_cast<double>(i) : std::cos(static_cast<double>(i));
  });
  at::Tensor start = testing::pattern_vector(op);
  start[0] = 1e-13;
  Lanczos run(op, start);
  const EigenOptions options{.top = 3, .rtol = 1e-9};
  EigenPairs before = eigenvalues(op, run, options);
  ASSERT_TRUE(before.converged);
  ASSERT_NEAR(before.top[0].value, 13, 1e-9);
  run.extend(op, 40 - run.steps());
  EigenPairs after = eigenvalues_so_far(run, options);
  ASSERT_NEAR(after.top[0].value, 20, 1e-9);
  for (EigenPairs* pairs : {&before, &after}) {
    measure_residuals(op, eigenvectors(run, *pairs), *pairs, 2);
    for (const EigenEstimate& one : pairs->top) EXPECT_LE(one.true_residual, 1e-7);
  }
  const std::size_t keep[] = {0, 39};
  run.thick_restart(keep);  // which the rows do not outlive
  EXPECT_THROW(eigenvectors(run, after), Error);
}

// The probe's run already has more rows than the basis may have.
TEST(Eigenvalues, ThickRestartOfALongerRun) {
  const at::Tensor matrix = testing::gaussian_matrix(400, 28);
  DenseOperator op(local, matrix);
  Lanczos run = fresh_run(op);
  run.extend(op, 60);
  const EigenResult result = eigenvalues(op, run, {.top = 8, .max_steps = 1000, .max_basis = 30});
  EXPECT_TRUE(result.converged);
  EXPECT_LT(run.t().rows(), 30);
  expect_ends(result, descending(matrix), 1e-9);
}

// Nine distinct eigenvalues: each closed space adds one copy of the first three, and the third and fourth no longer fit
// into the basis beside those before.
TEST(Eigenvalues, MultipleEigenvaluesWithThickRestarts) {
  std::vector<double> values(150);
  for (std::size_t i = 0; i < 150; ++i)
    values[i] = i < 9 ? 4 - static_cast<double>(i / 3) : std::cos(static_cast<double>(i % 6));
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const at::Tensor matrix = matrix_with_spectrum(values, 29).to(dtype);
    DenseOperator op(local, matrix);
    Lanczos run = fresh_run(op);
    const EigenResult result = eigenvalues(op, run, {.top = 10, .max_steps = 1000, .max_basis = 20});
    EXPECT_TRUE(result.converged);
    EXPECT_GT(result.thick_restarts, 0);
    expect_ends(result, descending(matrix.to(at::kDouble)), dtype == at::kDouble ? 1e-9 : 1e-5);
  }
}

TEST(Eigenvalues, ABasisTooSmallSaysWhichWouldDo) {
  DenseOperator op(local, testing::gaussian_matrix(200, 30));
  Lanczos run = fresh_run(op);
  std::int64_t enough = 0;
  try {
    eigenvalues(op, run, {.top = 10, .bottom = 4, .max_steps = 3000, .max_basis = 14});
    FAIL();
  } catch (const UsageError& error) {
    const std::string text = error.what();
    enough = std::stoll(text.substr(text.find(": ") + 2));
  }
  EXPECT_EQ(run.steps(), 0);
  const EigenResult result = eigenvalues(op, run, {.top = 10, .bottom = 4, .max_steps = 3000, .max_basis = enough});
  EXPECT_TRUE(result.converged);

  LanczosOptions narrow;
  narrow.basis.storage = at::kFloat;
  Lanczos other(op, probe_vector(op, ProbeDistribution::kGaussian, 1, 0), narrow);
  EXPECT_THROW(eigenvalues(op, other, {.top = 10, .max_basis = 50}), UsageError);
  EXPECT_TRUE(eigenvalues(op, other, {.top = 10, .max_steps = 190, .max_basis = 191}).converged);
}

LanczosOptions plain() {
  LanczosOptions none;
  none.reorthogonalisation = Reorthogonalisation::kNone;
  return none;
}

double planted(std::int64_t i) {
  return i < 20 ? 10 + 1.2 * static_cast<double>(i) : 0.3 * std::sin(static_cast<double>(i) * static_cast<double>(i));
}

TEST(Eigenvalues, NoGhostsWithoutReorthogonalisation) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    testing::RotatedDiagonalOperator op(local, 20'000, dtype, planted);
    Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 3, 0), plain());
    const EigenOptions options{.top = 20};
    const EigenPairs early = eigenvalues(op, run, options);
    EXPECT_TRUE(early.converged);
    EXPECT_LT(early.steps, 100);
    run.extend(op, 300 - run.steps());
    const EigenPairs late = eigenvalues_so_far(run, options);  // copies of all twenty by now
    for (const EigenResult& result : {early, late}) {
      ASSERT_EQ(result.top.size(), 20U);
      for (std::size_t i = 0; i < 20; ++i)
        EXPECT_NEAR(result.top[i].value, planted(19 - static_cast<std::int64_t>(i)),
                    dtype == at::kDouble ? 1e-10 : 3e-5);
    }
    EXPECT_THROW(eigenvectors(run, early), UsageError);
  }
}

TEST(Eigenvalues, AClosedSpaceWithoutReorthogonalisation) {
  DiagonalOperator op(local, 9000, at::kDouble, [](std::int64_t i) { return static_cast<double>(i % 3); });
  Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 3, 0), plain());
  const EigenResult result = eigenvalues(op, run, {.top = 5});
  EXPECT_EQ(result.steps, 3);
  EXPECT_FALSE(result.converged);
  EXPECT_TRUE(result.exhausted);
  ASSERT_EQ(result.top.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(result.top[i].value, 2 - static_cast<double>(i), 1e-12);
}

TEST(Eigenvalues, RefusesWhatMeansNothing) {
  DiagonalOperator op(local, 100, at::kDouble, [](std::int64_t i) { return static_cast<double>(i); });
  Lanczos run = fresh_run(op);
  EXPECT_THROW(eigenvalues(op, run, {.top = -1}), UsageError);
  EXPECT_THROW(eigenvalues(op, run, {.top = 1, .magnitude = 1}), UsageError);
  EXPECT_THROW(eigenvalues(op, run, {.top = 0, .bottom = 1, .magnitude = 1}), UsageError);
}

TEST(Residuals, NotFiniteIsAnError) {
  DiagonalOperator op(local, 100, at::kDouble, [](std::int64_t i) { return static_cast<double>(i); });
  Lanczos run = fresh_run(op);
  EigenResult result = eigenvalues(op, run, {.top = 2});
  const at::Tensor wrong = at::full({100}, std::nan(""), at::kDouble);
  EXPECT_THROW(measure_residuals(
                   op, [&](std::size_t) { return wrong; }, result, 1),
               NumericalError);
}

}  // namespace
}  // namespace hesspect::eigenvalues_test
