#include "hesspect/spectrum/cumulative.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "hesspect/core/errors.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"
#include "spectrum/planted.h"
#include "spectrum/run_probe.h"

namespace hesspect::cumulative_test {
namespace {

using testing::DenseOperator;
using testing::DiagonalOperator;
using testing::PlantedSpectrum;

LocalCommunicator local;

std::vector<ProbeQuadrature> probes_of(LinearOperator& op, std::int64_t probes, std::int64_t steps,
                                       ProbeDistribution distribution = ProbeDistribution::kGaussian,
                                       std::uint64_t seed = 5) {
  ProbeOptions options;
  options.steps = steps;
  options.seed = seed;
  options.distribution = distribution;
  std::vector<ProbeQuadrature> all;
  for (std::int64_t p = 0; p < probes; ++p) all.push_back(run_probe(op, p, options).quadrature);
  return all;
}

double sum_of(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

/// A quadrature from weights and nodes alone, by Lanczos on their diagonal matrix: closed.
ProbeQuadrature closed_quadrature(const std::vector<double>& nodes, const std::vector<double>& weights) {
  DiagonalOperator op(local, static_cast<std::int64_t>(nodes.size()), at::kDouble,
                      [&](std::int64_t i) { return nodes[static_cast<std::size_t>(i)]; });
  Lanczos run(op, at::sqrt(at::tensor(weights, at::kDouble)));
  run.extend(op, static_cast<std::int64_t>(nodes.size()));
  return quadrature_of(run.t(), 0);
}

void expect_consistent(const CumulativeDensity& d) {
  ASSERT_EQ(d.cumulative.size(), d.lambda.size());
  ASSERT_EQ(d.lower.size(), d.lambda.size());
  ASSERT_EQ(d.upper.size(), d.lambda.size());
  EXPECT_EQ(d.cumulative.back(), 1);
  EXPECT_DOUBLE_EQ(d.w1, d.w1_sampling + d.w1_quadrature);
  EXPECT_LE(d.range_lo, d.lambda.front());
  EXPECT_GE(d.range_hi, d.lambda.back());
  for (std::size_t i = 0; i < d.lambda.size(); ++i) {
    EXPECT_LE(0, d.lower[i]);
    EXPECT_LE(d.lower[i], d.cumulative[i]);
    EXPECT_LE(d.cumulative[i], d.upper[i]);
    EXPECT_LE(d.upper[i], 1);
    if (i == 0) continue;
    EXPECT_LT(d.lambda[i - 1], d.lambda[i]);
    EXPECT_LE(d.cumulative[i - 1], d.cumulative[i] + 1e-15);
    EXPECT_LE(d.lower[i - 1], d.lower[i]);
    EXPECT_LE(d.upper[i - 1], d.upper[i]);
  }
}

TEST(Reduced, OutliersWeighOneNthAndTheBulkKeepsItsShape) {
  const std::int64_t n = 5000;
  const PlantedSpectrum spectrum = testing::negative_outliers(n);
  testing::RotatedDiagonalOperator op(local, n, at::kDouble, spectrum.entry());
  const ProbeQuadrature q = probes_of(op, 1, 60)[0];
  const ReducedQuadrature r = reduced(q, n);
  EXPECT_EQ(r.points, 15);
  EXPECT_NEAR(sum_of(r.weight), 1, 1e-12);
  EXPECT_EQ(r.node, q.ritz);
  double ratio = 0;
  for (std::size_t k = 0; k < r.node.size(); ++k) {
    EXPECT_EQ(r.exact[k] != 0, std::abs(r.node[k]) > 1) << r.node[k];
    if (r.exact[k] != 0) {
      EXPECT_DOUBLE_EQ(r.weight[k], 1.0 / n);
    } else {
      if (ratio == 0) ratio = r.weight[k] / q.weight[k];
      EXPECT_NEAR(r.weight[k], ratio * q.weight[k], 1e-12);
    }
  }
}

TEST(Reduced, ResidualsAreThoseOfTheRitzVectors) {  // ‖A y − θ y‖, y made from the basis
  const at::Tensor matrix = testing::gaussian_matrix(200, 3);
  DenseOperator op(local, matrix);
  const ProbeRun run = run_probe(op, 0, {.steps = 30});
  const ReducedQuadrature r = reduced(run.quadrature, 200);
  at::Tensor t = at::diag(at::tensor(run.quadrature.alpha, at::kDouble));
  t = t + at::diag(at::tensor(run.quadrature.beta, at::kDouble), 1) +
      at::diag(at::tensor(run.quadrature.beta, at::kDouble), -1);
  const at::Tensor s = std::get<1>(at::linalg_eigh(t)).t().contiguous();
  for (std::int64_t k = 0; k < 30; ++k) {
    const at::Tensor y = run.lanczos->ritz_vector(std::span(s[k].const_data_ptr<double>(), 30));
    const double theta = r.node[static_cast<std::size_t>(k)];
    EXPECT_NEAR(at::norm(at::mv(matrix, y) - theta * y).item<double>(), r.residual[static_cast<std::size_t>(k)], 1e-12);
  }
}

TEST(Reduced, MultipleAndZeroEigenvaluesKeepTheirWeights) {
  // Closed after six steps: 0 many times, 0.5 and 1 often, and three values of a few copies.
  const std::int64_t n = 10'000;
  const PlantedSpectrum spectrum = testing::multiplicities(n);
  testing::RotatedDiagonalOperator op(local, n, at::kDouble, spectrum.entry());
  const ProbeQuadrature q = probes_of(op, 1, 60)[0];
  ASSERT_TRUE(q.breakdown);
  const ReducedQuadrature r = reduced(q, n);
  for (std::size_t k = 0; k < r.node.size(); ++k)
    if (std::abs(r.node[k]) < 2) {
      EXPECT_EQ(r.exact[k], 0) << r.node[k];
      EXPECT_NEAR(r.weight[k], q.weight[k], 1e-2 * q.weight[k]);
    }
  // A zero that weighs what one eigenvalue could is none the less left as it is.
  const ProbeQuadrature zero = closed_quadrature({-1, 0, 1, 2}, {0.001, 0.001, 0.997, 0.001});
  EXPECT_EQ(reduced(zero, 1000).exact, (std::vector<std::uint8_t>{1, 0, 0, 1}));
}

TEST(Reduced, PointsThatTogetherWeighTooMuchAreNotSimple) {
  std::vector<double> nodes{0}, weights{0};
  for (int k = 1; k <= 8; ++k) {
    nodes.push_back(k);
    weights.push_back(3e-4);  // n · weight = 3: likely alone, not eight times
  }
  weights[0] = 1 - 8 * 3e-4;
  EXPECT_EQ(reduced(closed_quadrature(nodes, weights), 10'000).points, 0);
  nodes.resize(2);
  EXPECT_EQ(reduced(closed_quadrature(nodes, {1 - 3e-4, 3e-4}), 10'000).points, 1);
  EXPECT_EQ(reduced(closed_quadrature(nodes, {1 - 3e-3, 3e-3}), 10'000).points, 0);  // n · weight = 30
}

TEST(Reduced, CopiesOfAnEigenvalueDoNotCountTwice) {  // without re-orthogonalisation
  const std::int64_t n = 5000;
  const PlantedSpectrum spectrum = testing::outliers_and_bulk(n);
  testing::RotatedDiagonalOperator op(local, n, at::kDouble, spectrum.entry());
  ProbeOptions options;
  options.steps = 80;
  options.lanczos.reorthogonalisation = Reorthogonalisation::kNone;
  const ProbeQuadrature q = run_probe(op, 0, options).quadrature;
  const ReducedQuadrature r = reduced(q, n);
  std::size_t copies = 0;
  for (const double value : spectrum.simple_outliers) {
    std::size_t near = 0;
    double kept = 0, own = 0;
    for (std::size_t k = 0; k < r.node.size(); ++k)
      if (std::abs(r.node[k] - value) < 0.1) {
        ++near;
        kept += r.weight[k];
        own += q.weight[k];
      }
    copies += near - 1;
    EXPECT_LT(std::min(std::abs(kept - 1.0 / n), std::abs(kept - own)), 0.01 / n) << value;
  }
  EXPECT_GT(copies, 5U);  // else this test shows nothing
}

TEST(Reduced, QuadraturesThatDoNotFit) {
  ProbeQuadrature q = closed_quadrature({-1, 1}, {0.5, 0.5});
  EXPECT_THROW(reduced(q, 0), UsageError);
  ProbeQuadrature no_matrix = q;
  no_matrix.alpha.clear();
  EXPECT_THROW(reduced(no_matrix, 10), UsageError);
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    ProbeQuadrature alpha = q, beta = q, last = q;
    alpha.alpha[1] = beta.beta[0] = last.beta_last = bad;
    for (const ProbeQuadrature& one : {alpha, beta, last}) EXPECT_THROW(reduced(one, 10), NumericalError);
  }
  EXPECT_THROW(cumulative_density(std::span(&q, 1), 10, {.confidence = 1}), UsageError);
  EXPECT_TRUE(cumulative_density({}, 10).lambda.empty());
  EXPECT_EQ(cumulative_density({}, 10).w1, std::numeric_limits<double>::infinity());
}

// The bound holds for the probe's own measure, which a diagonal operator shows: weights z_i², nothing else.
TEST(QuadratureW1, BoundsTheDistanceToTheProbesMeasure) {
  for (const PlantedSpectrum& spectrum : testing::planted_spectra(2000)) {
    DiagonalOperator op(local, 2000, at::kDouble,
                        [&](std::int64_t i) { return spectrum.values[static_cast<std::size_t>(i)]; });
    for (const std::int64_t steps : {1, 2, 5, 15, 40}) {
      const ProbeQuadrature q = probes_of(op, 1, steps)[0];
      at::Tensor z = probe_vector(op, ProbeDistribution::kGaussian, 5, 0);
      z = z * z / at::dot(z, z);
      std::vector<double> own = spectrum.values, mass = q.weight;  // as one signed step function
      double w1 = 0, difference = 0;
      std::vector<std::pair<double, double>> jumps;
      for (std::size_t i = 0; i < own.size(); ++i)
        jumps.emplace_back(own[i], z[static_cast<std::int64_t>(i)].item<double>());
      for (std::size_t k = 0; k < mass.size(); ++k) jumps.emplace_back(q.ritz[k], -mass[k]);
      std::sort(jumps.begin(), jumps.end());
      for (std::size_t i = 0; i + 1 < jumps.size(); ++i) {
        difference += jumps[i].second;
        w1 += std::abs(difference) * (jumps[i + 1].first - jumps[i].first);
      }
      // n = 10⁹: no weight is as small as 1/n, so no point is exact and the quadrature is compared as it is.
      const double bound = quadrature_w1(q, 1'000'000'000);
      EXPECT_LE(w1, bound + 1e-10 * spectrum.scale()) << spectrum.name << ", " << steps << " steps";
      if (q.breakdown) {
        EXPECT_EQ(bound, 0);
      } else if (steps >= 15) {  // few steps: much worse measures of the same moments
        EXPECT_LE(bound, 12 * w1) << spectrum.name << ", " << steps << " steps";
      }
    }
  }
}

/// The k-th moment of a discrete measure.
double moment(const std::vector<double>& node, const std::vector<double>& weight, int k) {
  double sum = 0;
  for (std::size_t i = 0; i < node.size(); ++i) sum += weight[i] * std::pow(node[i], k);
  return sum;
}

TEST(Averaged, OneRuleIsTheBorderedMatrix) {  // by LAPACK on T with β_m and α_m below
  const at::Tensor matrix = testing::gaussian_matrix(300, 11);
  DenseOperator op(local, matrix);
  for (const std::int64_t m : {1, 2, 9, 20}) {
    const ProbeQuadrature q = probes_of(op, 1, m)[0];
    const ReducedQuadrature r = reduced(q, 1'000'000'000);  // no weight is 1/n: none is exact
    const AveragedQuadrature one = averaged(q, r, 1);
    std::vector<double> off = q.beta;
    off.push_back(q.beta_last);
    std::vector<double> diagonal = q.alpha;
    diagonal.push_back(q.alpha.back());
    at::Tensor t = at::diag(at::tensor(diagonal, at::kDouble));
    t = t + at::diag(at::tensor(off, at::kDouble), 1) + at::diag(at::tensor(off, at::kDouble), -1);
    const auto [values, vectors] = at::linalg_eigh(t);
    ASSERT_EQ(one.node.size(), q.ritz.size() + 1);
    for (std::int64_t k = 0; k <= m; ++k) {
      const auto i = static_cast<std::size_t>(k);
      // The outermost of them may be moved to where the ends' residuals reach.
      if (k > 0 && k < m) {
        EXPECT_NEAR(one.node[i], values[k].item<double>(), 1e-12);
      }
      EXPECT_NEAR(one.weight[i], std::pow(vectors[0][k].item<double>(), 2), 1e-12);
    }
  }
}

TEST(Averaged, HasTheProbesMoments) {
  for (const PlantedSpectrum& spectrum : testing::planted_spectra(2000)) {
    DiagonalOperator op(local, 2000, at::kDouble, spectrum.entry());
    const ProbeQuadrature q = probes_of(op, 1, 4)[0];
    const ReducedQuadrature r = reduced(q, 1'000'000'000);
    const AveragedQuadrature average = averaged(q, r, 2);
    EXPECT_TRUE(std::is_sorted(average.node.begin(), average.node.end()));
    EXPECT_NEAR(sum_of(average.weight), 1, 1e-12) << spectrum.name;
    if (average.node.front() == r.node.front() - r.residual.front() ||
        average.node.back() == r.node.back() + r.residual.back())
      continue;  // moved
    for (int k = 1; k <= 7; ++k)
      EXPECT_NEAR(moment(average.node, average.weight, k), moment(q.ritz, q.weight, k),
                  1e-10 * std::pow(spectrum.scale(), k))
          << spectrum.name << ", moment " << k;
  }
}

TEST(Averaged, KeepsWhatTheGapsIsolate) {
  // A tenth at zero, ten outliers of weight 1/n: both are found to rounding, by all rules.
  const std::int64_t n = 4000;
  const PlantedSpectrum spectrum = testing::negative_outliers(n);
  testing::RotatedDiagonalOperator op(local, n, at::kDouble, spectrum.entry());
  const ProbeQuadrature q = probes_of(op, 1, 60)[0];
  const ReducedQuadrature r = reduced(q, n);
  ASSERT_GT(r.points, 10);
  const AveragedQuadrature average = averaged(q, r, 16);
  for (std::size_t k = 0; k < r.node.size(); ++k) {
    if (r.exact[k] == 0) continue;
    double near = 0;
    for (std::size_t i = 0; i < average.node.size(); ++i)
      if (std::abs(average.node[i] - r.node[k]) < 1e-6) near += average.weight[i];
    EXPECT_NEAR(near, 1.0 / n, 1e-9) << r.node[k];
  }
  EXPECT_NEAR(sum_of(average.weight), 1, 1e-12);
}

TEST(Averaged, ClosedQuadraturesStay) {
  const ProbeQuadrature q = closed_quadrature({-1, 0, 2}, {0.3, 0.3, 0.4});
  const ReducedQuadrature r = reduced(q, 10'000);
  EXPECT_EQ(averaged(q, r, 16).node, r.node);
  EXPECT_EQ(averaged(q, r, 16).weight, r.weight);
}

// What it is for: nearer to dense spectra, and no further from any.
TEST(Averaged, IsNearerToTheSpectrum) {
  const std::int64_t n = 20'000;
  for (const PlantedSpectrum& spectrum : testing::planted_spectra(n)) {
    DiagonalOperator op(local, n, at::kDouble, spectrum.entry());
    double gauss = 0, mean = 0;
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      const std::vector<ProbeQuadrature> q =
          probes_of(op, 1, 14 + 3 * static_cast<std::int64_t>(seed), ProbeDistribution::kRademacher, seed);
      const CumulativeDensity plain = cumulative_density(q, n, {.most_points = 0}), d = cumulative_density(q, n);
      gauss += testing::wasserstein(spectrum.values, plain.lambda, plain.cumulative);
      mean += testing::wasserstein(spectrum.values, d.lambda, d.cumulative);
      EXPECT_LE(d.lambda.size(), 40'000U);
      EXPECT_NEAR(d.w1, plain.w1, 1e-9 * plain.w1);
    }
    std::printf("%s: %.2e by Gauss's nodes, %.2e averaged\n", spectrum.name.c_str(), gauss / 6, mean / 6);
    EXPECT_LE(mean, 1.1 * gauss + 1e-9) << spectrum.name;
    if (spectrum.name == "Marchenko-Pastur" || spectrum.name == "semicircle") {
      EXPECT_LE(mean, 0.6 * gauss) << spectrum.name;
    }
  }
}

TEST(Cumulative, AllOfASmallSpectrumIsExact) {
  const at::Tensor matrix = testing::gaussian_matrix(24, 7);
  DenseOperator op(local, matrix);
  const at::Tensor values = std::get<0>(at::linalg_eigh(matrix));
  for (const std::int64_t probes : {1, 4}) {
    const CumulativeDensity d = cumulative_density(probes_of(op, probes, 30), 24);
    expect_consistent(d);
    EXPECT_EQ(d.band, "exact");
    EXPECT_EQ(d.exact_points, 24);
    EXPECT_LT(d.w1, 1e-10);
    ASSERT_EQ(d.lambda.size(), 24U);
    for (std::int64_t i = 0; i < 24; ++i) {
      EXPECT_NEAR(d.lambda[static_cast<std::size_t>(i)], values[i].item<double>(), 1e-10);
      EXPECT_NEAR(d.cumulative[static_cast<std::size_t>(i)], static_cast<double>(i + 1) / 24, 1e-12);
    }
    for (std::size_t i = 0; i < 24; ++i) EXPECT_NEAR(d.upper[i] - d.lower[i], 0, 1e-12);
    EXPECT_NEAR(d.moments[1].value, at::mean(values * values).item<double>(), 1e-12);
    EXPECT_EQ(d.moments[1].standard_error, 0);
    EXPECT_NEAR(d.negative_mass.value, at::sum(values < 0).item<double>() / 24, 1e-12);
    EXPECT_EQ(d.negative_mass.standard_error, 0);
  }
}

TEST(Cumulative, AllZeros) {
  DiagonalOperator op(local, 1000, at::kDouble, [](std::int64_t) { return 0.0; });
  for (const std::int64_t probes : {1, 3}) {
    const CumulativeDensity d = cumulative_density(probes_of(op, probes, 10), 1000);
    expect_consistent(d);
    EXPECT_EQ(d.lambda, std::vector<double>{0});
    EXPECT_EQ(d.w1, 0);
    EXPECT_EQ(d.weight_at_zero.value, 1);
    EXPECT_EQ(d.weight_at_zero.standard_error, 0);
    EXPECT_EQ(d.negative_mass.value, 0);
  }
}

TEST(Cumulative, JackknifeFromThreeProbesOn) {
  DenseOperator op(local, testing::gaussian_matrix(400, 2));
  const std::vector<ProbeQuadrature> all = probes_of(op, 4, 12);
  EXPECT_EQ(cumulative_density(std::span(all).first(2), 400).band, "a priori");
  const CumulativeDensity d = cumulative_density(all, 400);
  expect_consistent(d);
  EXPECT_EQ(d.band, "jackknife");
  EXPECT_EQ(d.probes, 4);
  // ∫ s dλ by leaving one out, straight from the definition, on a fine grid; Student's t of 3 degrees at 90 %: 2.3534.
  double integral = 0;
  const int cells = 40'000;
  for (int c = 0; c < cells; ++c) {
    const double x = -2.5 + 5 * (c + 0.5) / cells;
    std::vector<double> without(4, 0.0);
    for (std::size_t p = 0; p < 4; ++p)
      for (std::size_t k = 0; k < 12; ++k)
        if (all[p].ritz[k] <= x)
          for (std::size_t other = 0; other < 4; ++other) without[other] += other == p ? 0 : all[p].weight[k] / 3;
    const double mean = sum_of(without) / 4;
    double square = 0;
    for (const double value : without) square += (value - mean) * (value - mean);
    integral += std::sqrt(3.0 / 4 * square) * 5 / cells;
  }
  ASSERT_EQ(d.exact_points, 0);
  EXPECT_NEAR(d.w1_sampling, 2.3534 * integral, 2e-3 * integral);
}

TEST(Cumulative, APrioriBandIsTheBoundOfChenTrogdonAndUbaru) {
  // Closed, so that quadrature adds nothing: ±√(ln(2/0.1) / (P (n + 2))) between the first value and the last.
  const ProbeQuadrature q = closed_quadrature({-1, 0, 2}, {0.3, 0.3, 0.4});
  const std::vector<ProbeQuadrature> two{q, q};
  const double t = std::sqrt(std::log(20.0) / (2 * 10'002.0));
  const CumulativeDensity d = cumulative_density(two, 10'000);
  expect_consistent(d);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(d.lower[i], d.cumulative[i] - t, 1e-12);
    EXPECT_NEAR(d.upper[i], d.cumulative[i] + t, 1e-12);
  }
  EXPECT_EQ(d.upper[2], 1);
  EXPECT_EQ(d.w1_quadrature, 0);
  EXPECT_NEAR(d.w1_sampling, 1.644854 * (std::sqrt(2 * 0.3 * 0.7) + 2 * std::sqrt(2 * 0.6 * 0.4)) / std::sqrt(20'004.0),
              1e-6);
  EXPECT_NEAR(d.negative_mass.value, 0.3, 1e-12);
  EXPECT_NEAR(d.negative_mass.standard_error, std::sqrt(2 * 0.3 * 0.7 / 20'004.0), 1e-9);
}

// Standard errors against the truth: off by one of them, root mean square, over 200 seeds.
TEST(Cumulative, MomentsAreWithinTheirStandardErrors) {
  const at::Tensor matrix = testing::gaussian_matrix(150, 4) + 0.3 * at::eye(150, at::kDouble);
  DenseOperator op(local, matrix);
  const at::Tensor values = std::get<0>(at::linalg_eigh(matrix));
  for (const std::int64_t probes : {1, 8}) {
    std::vector<double> square(4, 0.0);
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      const CumulativeDensity d =
          cumulative_density(probes_of(op, probes, 12, ProbeDistribution::kGaussian, seed), 150);
      for (std::size_t k = 0; k < 4; ++k) {
        const double truth = at::mean(at::pow(values, static_cast<double>(k + 1))).item<double>();
        square[k] += std::pow((d.moments[k].value - truth) / d.moments[k].standard_error, 2) / 200;
      }
    }
    for (std::size_t k = 0; k < 4; ++k) {  // t of 7 degrees has variance 7/5
      EXPECT_GT(std::sqrt(square[k]), 0.8) << probes << " probes, moment " << k + 1;
      EXPECT_LT(std::sqrt(square[k]), 1.35) << probes << " probes, moment " << k + 1;
    }
  }
}

TEST(Cumulative, VarianceReductionCentresOutliers) {  // the raw first moment is off by the outliers' χ², ±12 % here
  const std::int64_t n = 20'000;
  const PlantedSpectrum spectrum = testing::low_rank(n);
  testing::RotatedDiagonalOperator op(local, n, at::kDouble, spectrum.entry());
  const ProbeQuadrature q = probes_of(op, 1, 40)[0];
  const CumulativeDensity d = cumulative_density(std::span(&q, 1), n);
  EXPECT_EQ(d.exact_points, 10);
  EXPECT_NEAR(d.moments[0].value, 55.0 / n, 1e-10);
  EXPECT_GT(std::abs(q.alpha[0] - 55.0 / n), 0.02 * 55.0 / n);
  EXPECT_NEAR(d.weight_at_zero.value, 1 - 10.0 / n, 1e-12);
  EXPECT_LT(testing::wasserstein(spectrum.values, d.lambda, d.cumulative), 1e-10);
}

}  // namespace
}  // namespace hesspect::cumulative_test
