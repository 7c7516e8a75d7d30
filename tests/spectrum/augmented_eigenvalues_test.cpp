// Eigenvalues from a Krylov space and given vectors, of operators whose spectrum is known.
#include "hesspect/spectrum/augmented_eigenvalues.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"

namespace hesspect::augmented_eigenvalues_test {
namespace {

using testing::DiagonalOperator;
using testing::RotatedDiagonalOperator;

constexpr std::int64_t kN = 3000;

/// Outliers 40, 36, … over a bulk in [−1, 1], and one of −8.
double planted(std::int64_t i) {
  if (i < 8) return 40 - 4 * static_cast<double>(i);
  if (i == 8) return -8;
  return std::cos(static_cast<double>(i));
}

/// The same outliers close together, which a Krylov space tells apart only after many steps.
double crowded(std::int64_t i) {
  if (i < 8) return 3 - 0.01 * static_cast<double>(i);
  if (i == 8) return -2;
  return std::cos(static_cast<double>(i));
}

/// Coordinate vectors, turned a little: near the eigenvectors of a diagonal operator.
std::vector<at::Tensor> near(const LinearOperator& op, const std::vector<std::int64_t>& places, double angle) {
  std::vector<at::Tensor> vectors;
  for (std::size_t k = 0; k < places.size(); ++k) {
    at::Tensor v = probe_vector(op, ProbeDistribution::kGaussian, 77, static_cast<std::uint64_t>(100 + k));
    v.mul_(angle / std::sqrt(static_cast<double>(kN)));
    const Shard& shard = op.shard();
    if (places[k] >= shard.begin() && places[k] < shard.end()) v[places[k] - shard.begin()] += 1;
    vectors.push_back(v);
  }
  return vectors;
}

/// The largest residual that products of the vectors themselves show.
double largest_residual(LinearOperator& op, const EigenResult& result, const VectorSource& vectors) {
  double largest = 0;
  std::size_t place = 0;
  for (const auto* list : {&result.top, &result.bottom})
    for (const EigenEstimate& one : *list) {
      at::Tensor y = vectors(place++);
      EXPECT_NEAR(op.comm().sum(norm_sq(y)), 1, 1e-10);
      at::Tensor r = at::zeros_like(y);
      op.apply(y, r);
      r.sub_(y, one.value);
      const double residual = std::sqrt(op.comm().sum(norm_sq(r)));
      EXPECT_NEAR(residual, one.true_residual, 1e-7 + 1e-3 * residual);
      largest = std::max(largest, residual);
    }
  return largest;
}

TEST(AugmentedEigenvalues, FewProductsWhereTheVectorsAreNear) {
  const auto comm = make_host_communicator();
  DiagonalOperator op(*comm, kN, at::kDouble, crowded);
  const EigenOptions options{.top = 8, .bottom = 1, .rtol = 1e-4};
  Lanczos plain(op, probe_vector(op, ProbeDistribution::kRademacher, 5, 0));
  const EigenPairs alone = eigenvalues(op, plain, options);
  ASSERT_TRUE(alone.converged);

  Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 5, 0));
  run.extend(op, 12);
  VectorSource vectors;
  const EigenResult found =
      augmented_eigenvalues(op, run, near(op, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 5e-5), options, 60, &vectors);
  ASSERT_TRUE(found.converged);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(found.top[i].value, crowded(static_cast<std::int64_t>(i)), 1e-4);
  EXPECT_NEAR(found.bottom[0].value, -2, 1e-4);
  EXPECT_LT(largest_residual(op, found, vectors), 1e-4 * 3);
  EXPECT_LT(found.steps + 10, alone.steps);
}

TEST(AugmentedEigenvalues, VectorsThatHaveTurnedTooFarTakeNoProducts) {
  const auto comm = make_host_communicator();
  DiagonalOperator op(*comm, kN, at::kDouble, planted);
  const EigenOptions options{.top = 8, .bottom = 1, .rtol = 1e-4};
  const std::vector<std::int64_t> places{0, 1, 2, 3, 4, 5, 6, 7, 8};
  Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 5, 0));
  run.extend(op, 12);
  EXPECT_EQ(near_eigenvectors(run, near(op, places, 0), options.rtol).size(), places.size());
  EXPECT_EQ(near_eigenvectors(run, near(op, places, 1e-4), options.rtol).size(), places.size());
  // Turned within the space of the leading ones, as training turns them.
  std::vector<at::Tensor> turned = near(op, places, 0);
  for (std::size_t i = 0; i + 1 < turned.size(); ++i) turned[i].add_(turned[i + 1], 0.2);
  EXPECT_EQ(near_eigenvectors(run, std::span(turned).first(8), options.rtol).size(), 0);
  const EigenResult with = augmented_eigenvalues(op, run, std::span(turned).first(8), options, 60),
                    without = augmented_eigenvalues(op, run, {}, options, 60);
  EXPECT_TRUE(with.converged);
  EXPECT_EQ(with.steps, without.steps);
}

TEST(AugmentedEigenvalues, WithoutVectorsItIsTheLanczosProcess) {
  const auto comm = make_host_communicator();
  RotatedDiagonalOperator op(*comm, kN, at::kDouble, planted);
  const EigenOptions options{.top = 3, .bottom = 1, .rtol = 1e-6};
  Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 6, 0)),
      longer = [&] { return Lanczos(op, probe_vector(op, ProbeDistribution::kRademacher, 6, 0)); }();
  run.extend(op, 10);
  longer.extend(op, 15);
  const EigenResult found = augmented_eigenvalues(op, run, {}, options, 5);
  const EigenPairs same = eigenvalues_so_far(longer, options);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(found.top[i].value, same.top[i].value, 1e-9);
}

TEST(AugmentedEigenvalues, WhatIsNewIsFoundBesideAllThatWasKnown) {
  const auto comm = make_host_communicator();
  // The given vectors are eigenvectors, exactly, and know nothing of the new outlier of 38.
  const auto with_new = [](std::int64_t i) { return i == 1500 ? 38.0 : planted(i); };
  DiagonalOperator op(*comm, kN, at::kDouble, with_new);
  const EigenOptions options{.top = 8, .bottom = 1, .rtol = 1e-4};
  int found_new = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, seed, 0));
    run.extend(op, 16);
    const EigenResult found = augmented_eigenvalues(op, run, near(op, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 0), options, 60);
    ASSERT_TRUE(found.converged);
    EXPECT_NEAR(found.top[0].value, 40, 1e-3);
    if (std::abs(found.top[1].value - 38) < 1e-3 && std::abs(found.top[2].value - 36) < 1e-3) ++found_new;
  }
  EXPECT_EQ(found_new, 20);
}

TEST(AugmentedEigenvalues, TellsWhereProductsWereTooFew) {
  const auto comm = make_host_communicator();
  RotatedDiagonalOperator op(*comm, kN, at::kDouble, [](std::int64_t i) { return static_cast<double>(i) / kN; });
  Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 1, 0));
  run.extend(op, 5);
  const EigenResult found = augmented_eigenvalues(op, run, {}, {.top = 5, .rtol = 1e-8}, 7);
  EXPECT_FALSE(found.converged);
  EXPECT_EQ(found.steps, 12);
}

}  // namespace
}  // namespace hesspect::augmented_eigenvalues_test
