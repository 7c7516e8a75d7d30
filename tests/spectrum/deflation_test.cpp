// The trace's samples after deflation, against dense matrices on which everything is worked out in full.
#include "hesspect/spectrum/deflation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/trace.h"
#include "krylov/test_operators.h"

namespace hesspect::deflation_test {
namespace {

LocalCommunicator local;
constexpr std::int64_t kDimensions = 120;
const LayerOffsets kLayers{0, 7, 50, 51, 120};

/// A few large eigenvalues of both signs over a bulk.
at::Tensor matrix() {
  std::vector<double> values;
  for (int i = 0; i < kDimensions; ++i) values.push_back(i < 6 ? 20.0 - 7 * i : std::cos(i) * 0.5);
  return testing::matrix_with_spectrum(values, 3);
}

/// V: all rows of the run's basis but the last of its projection, or all where the space is closed; [n, r].
at::Tensor deflated_space(const Lanczos& run, std::int64_t rank) {
  return at::cat(run.basis_rows(), 0).narrow(0, 0, rank).to(at::kDouble).t();
}

std::vector<double> over_layers(const at::Tensor& terms) {
  std::vector<double> sums;
  for (std::size_t l = 0; l + 1 < kLayers.size(); ++l)
    sums.push_back(terms.narrow(0, kLayers[l], kLayers[l + 1] - kLayers[l]).sum().item<double>());
  return sums;
}

DeflatedSample deflated_alone(const KrylovDeflation& deflation, const TraceSample& sample, const at::Tensor& z) {
  return deflation.deflated(std::span(&sample, 1), std::span(&z, 1)).front();
}

void expect_as_dense(const at::Tensor& a, testing::DenseOperator& op, const Lanczos& run) {
  const KrylovDeflation deflation(op, run, kLayers);
  const at::Tensor v = deflated_space(run, deflation.rank());
  const at::Tensor p = at::eye(kDimensions, at::kDouble) - v.matmul(v.t());
  const at::Tensor left = p.matmul(a).matmul(p);
  const at::Tensor rest = a.diagonal() - left.diagonal();
  EXPECT_NEAR(deflation.captured(), rest.sum().item<double>(), 1e-10);
  const double whole_sq = a.square().sum().item<double>();
  EXPECT_NEAR(deflation.captured_sq(), whole_sq - left.square().sum().item<double>(), 1e-11 * whole_sq);
  EXPECT_TRUE(at::allclose(deflation.captured_diagonal(), rest, 0, 1e-11));
  const std::vector<double> layers = over_layers(rest);
  for (std::size_t l = 0; l < layers.size(); ++l) EXPECT_NEAR(deflation.captured_layers()[l], layers[l], 1e-10);

  std::vector<at::Tensor> probes;
  std::vector<TraceSample> samples;
  for (std::int64_t number = 5; number < 8; ++number) {
    const at::Tensor z = probe_vector(op, ProbeDistribution::kRademacher, 1, static_cast<std::uint64_t>(number));
    const TraceSample sample = trace_sample(op, kLayers, number, z, at::mv(a, z));
    const DeflatedSample found = deflated_alone(deflation, sample, z);
    const at::Tensor image = at::mv(left, z);
    EXPECT_EQ(found.probe, number);
    EXPECT_NEAR(found.quadratic_form, at::dot(z, image).item<double>(), 1e-9);
    EXPECT_NEAR(found.product_norm_sq, at::dot(image, image).item<double>(), 1e-8);
    const std::vector<double> expected = over_layers(z * image);
    for (std::size_t l = 0; l < expected.size(); ++l) EXPECT_NEAR(found.layers[l], expected[l], 1e-9);
    EXPECT_TRUE(at::allclose(deflation.remainder(z, at::mv(a, z)), image, 0, 1e-10));
    probes.push_back(z);
    samples.push_back(sample);
  }
  const std::vector<DeflatedSample> together = deflation.deflated(samples, probes);
  ASSERT_EQ(together.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    const DeflatedSample alone = deflated_alone(deflation, samples[i], probes[i]);
    EXPECT_EQ(together[i].probe, alone.probe);
    EXPECT_EQ(together[i].quadratic_form, alone.quadratic_form);
    EXPECT_EQ(together[i].product_norm_sq, alone.product_norm_sq);
    EXPECT_EQ(together[i].layers, alone.layers);
  }
}

TEST(KrylovDeflation, AgreesWithDenseProjections) {
  const at::Tensor a = matrix();
  testing::DenseOperator op(local, a);
  for (const std::int64_t steps : {1, 2, 17, 60}) {
    SCOPED_TRACE(steps);
    Lanczos run(op, testing::pattern_vector(op));
    run.extend(op, steps);
    expect_as_dense(a, op, run);
  }
}

TEST(KrylovDeflation, AfterAThickRestart) {
  const at::Tensor a = matrix();
  testing::DenseOperator op(local, a);
  Lanczos run(op, testing::pattern_vector(op));
  run.extend(op, 30);
  const std::vector<std::size_t> keep{0, 1, 2, 27, 28, 29};
  run.thick_restart(keep);
  run.extend(op, 1);
  expect_as_dense(a, op, run);
  run.extend(op, 9);
  expect_as_dense(a, op, run);
}

TEST(KrylovDeflation, ClosedSpacesAndFurtherBlocks) {
  std::vector<double> values(kDimensions, 0.0);
  for (int i = 0; i < 9; ++i) values[static_cast<std::size_t>(i)] = i / 3 + 1;  // 1, 2, 3 three times each
  const at::Tensor a = testing::matrix_with_spectrum(values, 8);
  testing::DenseOperator op(local, a);
  Lanczos run(op, testing::pattern_vector(op));
  run.extend(op, 30);
  ASSERT_TRUE(run.t().breakdown());
  expect_as_dense(a, op, run);
  ASSERT_TRUE(run.restart(testing::pattern_vector(op, 1.7)));
  run.extend(op, 2);
  ASSERT_FALSE(run.t().breakdown());
  expect_as_dense(a, op, run);
}

/// Float32 products and rows: the samples are as good as the products, and stay unbiased.
TEST(KrylovDeflation, NarrowRowsLeaveTheMeanRight) {
  const at::Tensor a = matrix();
  testing::DenseOperator op(local, a);
  LanczosOptions options;
  options.basis.storage = at::kBFloat16;
  Lanczos run(op, testing::pattern_vector(op), options);
  run.extend(op, 40);
  const KrylovDeflation deflation(op, run, kLayers);
  std::vector<DeflatedSample> samples;
  for (std::int64_t number = 0; number < 400; ++number) {
    const at::Tensor z = probe_vector(op, ProbeDistribution::kRademacher, 2, static_cast<std::uint64_t>(number));
    const TraceSample sample = trace_sample(op, kLayers, number, z, at::mv(a, z));
    samples.push_back(deflated_alone(deflation, sample, z));
  }
  const TraceEstimate trace = trace_estimate(deflation.captured(), samples, {});
  EXPECT_NEAR(trace.value, a.trace().item<double>(), 3 * trace.standard_error);
  EXPECT_LT(trace.standard_error, 0.4);  // 2.2 without deflation: ‖A‖_F √(2/400)
}

/// The forecast at r steps is what deflating r − 1 rows really leaves of the same samples.
TEST(DeflationForecast, AgreesWithDeflation) {
  const at::Tensor a = matrix();
  testing::DenseOperator op(local, a);
  std::vector<TraceSample> samples;
  std::vector<at::Tensor> z;
  for (std::int64_t number = 0; number < 2; ++number) {
    z.push_back(probe_vector(op, ProbeDistribution::kRademacher, 4, static_cast<std::uint64_t>(number)));
    samples.push_back(trace_sample(op, {}, number, z.back(), at::mv(a, z.back())));
  }
  DeflationForecast forecast(samples, z);
  Lanczos run(op, testing::pattern_vector(op));
  for (std::int64_t steps = 4; steps <= 40; steps += 9) {
    run.extend(op, steps - run.steps());
    forecast.update(run);
    const KrylovDeflation deflation(op, run, {});
    double norm_sq = 0, trace = deflation.captured();
    for (std::size_t s = 0; s < 2; ++s) {
      const DeflatedSample left = deflated_alone(deflation, samples[s], z[s]);
      norm_sq += left.product_norm_sq / 2;
      trace += left.quadratic_form / 2;
    }
    const double probes = 2 * norm_sq / std::pow(0.01 * trace / 1.8, 2);
    EXPECT_NEAR(forecast.products_at(steps, 0.01, 1.8), static_cast<double>(steps) + std::max(2.0, probes),
                1e-6 * probes);
  }
}

TEST(LayerDots, SumOverRowsOfLayers) {
  testing::DenseOperator op(local, matrix());
  const at::Tensor a = testing::pattern_vector(op), b = testing::pattern_vector(op, 2);
  const std::vector<double> sums = layer_dots(local, op.shard(), kLayers, a, b), expected = over_layers(a * b);
  for (std::size_t l = 0; l < expected.size(); ++l) EXPECT_NEAR(sums[l], expected[l], 1e-12);
  EXPECT_TRUE(layer_dots(local, op.shard(), {}, a, b).empty());
}

}  // namespace
}  // namespace hesspect::deflation_test
