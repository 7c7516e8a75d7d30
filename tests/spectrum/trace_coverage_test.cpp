// Whether the intervals of traces hold at a nominal 90 %, on planted spectra over many seeds, and whether the standard
// errors of layers are those of their errors.
//
// Gaussian probes on a rotated diagonal, for Rademacher ones have next to no sampling error on it; Rademacher ones on a
// dense matrix. HESSPECT_LONG=1 takes 100 seeds instead of 50, and at 10⁶ dimensions too instead of 1 for some.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ostream>

#include "hesspect/spectrum/deflation.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/trace.h"
#include "hesspect/spectrum/trace_methods.h"
#include "krylov/test_operators.h"
#include "spectrum/planted.h"
#include "spectrum/samples_needed.h"

namespace hesspect::trace_coverage_test {
namespace {

using testing::PlantedSpectrum;
using testing::RotatedDiagonalOperator;

LocalCommunicator local;

bool long_run() {
  const char* value = std::getenv("HESSPECT_LONG");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

const int kSeeds = long_run() ? 100 : 50;
/// Of them at least: counts of a true coverage of 95 %, as a quarter on top of the width makes it. Intervals that held
/// in 80 % would pass with one in ten spectra of 50 seeds (one in 170 of 100), and so with all ten never.
const int kHeld = long_run() ? 90 : 44;
/// Of Hutch++ and XTrace, whose intervals rest on samples that share vectors.
const int kOthersHeld = long_run() ? 88 : 43;

struct Case {
  const char* name;
  PlantedSpectrum (*make)(std::int64_t n);
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

/// How often the intervals held, and how wide they were.
struct Tally {
  int runs = 0, held = 0, converged = 0;
  double off_sq = 0, half_width = 0, products = 0;  // sums

  void add(const TraceEstimate& trace, double exact, double rounding) {
    ++runs;
    const double off = std::abs(trace.value - exact);
    held += off <= trace.half_width + rounding;
    converged += trace.converged;
    off_sq += off * off;
    half_width += trace.half_width;
    products += static_cast<double>(trace.products);
  }
  void print(const PlantedSpectrum& spectrum, const char* method) const {
    std::printf(
        "%s, n = %zu, %s: held in %d of %d, converged %d, trace %.4g, rms error %.2e, half width %.2e, %.0f products\n",
        spectrum.name.c_str(), spectrum.values.size(), method, held, runs, converged, spectrum.trace(),
        std::sqrt(off_sq / runs), half_width / runs, products / runs);
  }
};

/// What rounding makes of a sum of n terms, where sampling leaves no error.
double rounding_of(const PlantedSpectrum& spectrum) {
  return 1e-12 * spectrum.scale() * std::sqrt(static_cast<double>(spectrum.values.size()));
}

/// Probe 0's run: until the ten largest eigenvalues have converged, at least `steps`.
Lanczos first_run(LinearOperator& op, ProbeDistribution distribution, std::uint64_t seed, std::int64_t steps) {
  Lanczos run(op, probe_vector(op, distribution, seed, 0));
  eigenvalues(op, run, {.top = 10, .max_steps = 2 * steps, .seed = seed});
  run.extend(op, steps - run.steps());
  return run;
}

/// Samples of probes 1, 2, … until the rule has enough, at most `most`; and the estimate from those that it needs.
TraceEstimate sampled(LinearOperator& op, ProbeDistribution distribution, std::uint64_t seed,
                      const KrylovDeflation* deflation, const TraceRule& rule, std::int64_t most) {
  std::vector<DeflatedSample> samples;
  at::Tensor hz = at::zeros({op.shard().chunk}, op.options());
  const double captured = deflation ? deflation->captured() : 0;
  std::int64_t needed = 0;
  while (needed == 0 && static_cast<std::int64_t>(samples.size()) < most) {
    const auto probe = static_cast<std::int64_t>(samples.size()) + 1;
    const at::Tensor z = probe_vector(op, distribution, seed, static_cast<std::uint64_t>(probe));
    op.apply(z, hz);
    const TraceSample sample = trace_sample(op, {}, probe, z, hz);
    if (deflation)
      samples.push_back(deflation->deflated(std::span(&sample, 1), std::span(&z, 1)).front());
    else
      samples.push_back({sample.probe, sample.quadratic_form, sample.product_norm_sq, sample.layers});
    needed = testing::samples_needed(captured, samples, rule);
  }
  TraceEstimate trace = trace_estimate(captured, samples, rule);
  trace.products = static_cast<std::int64_t>(samples.size());
  return trace;
}

Tally deflated_tally(const PlantedSpectrum& spectrum, LinearOperator& op, ProbeDistribution distribution, int seeds,
                     double rtol, std::int64_t steps, std::int64_t most) {
  Tally tally;
  for (int seed = 0; seed < seeds; ++seed) {
    const auto s = static_cast<std::uint64_t>(seed);
    const Lanczos run = first_run(op, distribution, s, steps);
    const KrylovDeflation deflation(op, run, {});
    tally.add(sampled(op, distribution, s, &deflation, {.rtol = rtol}, most), spectrum.trace(), rounding_of(spectrum));
  }
  tally.print(spectrum, "deflated");
  return tally;
}

class TraceCoverage : public ::testing::TestWithParam<Case> {
 protected:
  explicit TraceCoverage(std::int64_t n = 3'000)
      : spectrum_(GetParam().make(n)), op_(local, n, at::kDouble, spectrum_.entry()) {}
  PlantedSpectrum spectrum_;
  RotatedDiagonalOperator op_;
};

// The sum of the semicircle's values is zero: no relative accuracy is ever reached there, but the interval must hold.
TEST_P(TraceCoverage, Deflated) {
  const Tally tally = deflated_tally(spectrum_, op_, ProbeDistribution::kGaussian, kSeeds, 0.01, 40,
                                     GetParam().make == testing::semicircle ? 20 : 400);
  EXPECT_GE(tally.held, kHeld);
  EXPECT_EQ(tally.converged, GetParam().make == testing::semicircle ? 0 : kSeeds);
}

TEST_P(TraceCoverage, Hutchinson) {
  Tally tally;
  for (int seed = 0; seed < kSeeds; ++seed)
    tally.add(sampled(op_, ProbeDistribution::kGaussian, static_cast<std::uint64_t>(seed), nullptr, {.rtol = 0.1},
                      GetParam().make == testing::semicircle ? 20 : 600),
              spectrum_.trace(), rounding_of(spectrum_));
  tally.print(spectrum_, "hutchinson");
  EXPECT_GE(tally.held, kHeld);
}

using Method = TraceEstimate (*)(LinearOperator&, const TraceMethodOptions&, const std::function<void()>&);

Tally method_tally(const PlantedSpectrum& spectrum, LinearOperator& op, Method method, const char* name) {
  Tally tally;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const TraceMethodOptions options{.distribution = ProbeDistribution::kGaussian,
                                     .seed = static_cast<std::uint64_t>(seed),
                                     .rtol = 0.05,
                                     .max_products = 60};
    tally.add(method(op, options, {}), spectrum.trace(), rounding_of(spectrum));
  }
  tally.print(spectrum, name);
  return tally;
}

TEST_P(TraceCoverage, XTrace) { EXPECT_GE(method_tally(spectrum_, op_, xtrace, "xtrace").held, kOthersHeld); }
TEST_P(TraceCoverage, HutchPlusPlus) {
  EXPECT_GE(method_tally(spectrum_, op_, hutch_plus_plus, "hutch++").held, kOthersHeld);
}

/// Σ over each layer of the diagonal of P D P, P = I − 2uuᵀ: d_i − 4 u_i² d_i + 4 u_i² Σ_j u_j² d_j.
std::vector<double> layer_traces(const PlantedSpectrum& spectrum, const LayerOffsets& offsets) {
  const std::function<double(std::int64_t)> d = spectrum.entry();
  const auto u_sq = [](std::int64_t i) { return std::pow(1 + 0.5 * std::sin(static_cast<double>(i)), 2); };
  double norm_sq = 0, mean = 0;
  for (std::int64_t i = 0; i < offsets.back(); ++i) norm_sq += u_sq(i), mean += u_sq(i) * d(i);
  mean /= norm_sq;
  std::vector<double> traces;
  for (std::size_t l = 0; l + 1 < offsets.size(); ++l) {
    double sum = 0;
    for (std::int64_t i = offsets[l]; i < offsets[l + 1]; ++i) sum += d(i) + 4 * u_sq(i) / norm_sq * (mean - d(i));
    traces.push_back(sum);
  }
  return traces;
}

// (estimate − truth) / standard error has Student's distribution, of variance 19/17 with 20 samples.
TEST_P(TraceCoverage, LayersStandardErrors) {
  const auto n = static_cast<std::int64_t>(spectrum_.values.size());
  const LayerOffsets offsets{0, n / 10, n / 2, n};
  const std::vector<std::int64_t> sizes{n / 10, n / 2 - n / 10, n - n / 2};
  const std::vector<double> exact = layer_traces(spectrum_, offsets);
  double sum = 0, square = 0;
  int count = 0;
  at::Tensor hz = at::zeros({n}, at::kDouble);
  for (std::uint64_t seed = 0; seed < static_cast<std::uint64_t>(kSeeds); ++seed) {
    const Lanczos run = first_run(op_, ProbeDistribution::kGaussian, seed, 20);
    const KrylovDeflation deflation(op_, run, offsets);
    std::vector<DeflatedSample> samples;
    for (std::int64_t probe = 1; probe <= 20; ++probe) {
      const at::Tensor z = probe_vector(op_, ProbeDistribution::kGaussian, seed, static_cast<std::uint64_t>(probe));
      op_.apply(z, hz);
      const TraceSample sample = trace_sample(op_, offsets, probe, z, hz);
      samples.push_back(deflation.deflated(std::span(&sample, 1), std::span(&z, 1)).front());
    }
    const auto layers = layer_estimates({"a", "b", "c"}, sizes, deflation.captured_layers(), samples);
    double together = 0;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const Estimate& trace = layers[l].trace;
      together += trace.value;
      if (trace.standard_error <= rounding_of(spectrum_)) {  // the space closed: known exactly
        EXPECT_NEAR(trace.value, exact[l], 100 * rounding_of(spectrum_));
        continue;
      }
      const double z = (trace.value - exact[l]) / trace.standard_error;
      sum += z;
      square += z * z;
      ++count;
    }
    EXPECT_NEAR(together, trace_estimate(deflation.captured(), samples, {}).value, 100 * rounding_of(spectrum_));
  }
  if (count == 0) return;
  EXPECT_EQ(count, 3 * kSeeds);
  std::printf("%s: z-scores of layers %.2f, variance %.2f\n", spectrum_.name.c_str(), sum / count, square / count);
  EXPECT_LT(std::abs(sum / count), 0.25);
  EXPECT_GT(square / count, 0.8);
  EXPECT_LT(square / count, 1.5);
}

TEST_P(TraceCoverage, AMillionDimensions) {
  if (!long_run() && GetParam().make != testing::multiplicities) GTEST_SKIP() << "with HESSPECT_LONG=1";
  const int seeds = long_run() ? kSeeds : 1;
  const std::int64_t n = 1'000'000;
  const PlantedSpectrum spectrum = GetParam().make(n);
  RotatedDiagonalOperator op(local, n, at::kDouble, spectrum.entry());
  const Tally tally = deflated_tally(spectrum, op, ProbeDistribution::kGaussian, seeds, 0.1, 20, 60);
  EXPECT_GE(tally.held, long_run() ? kHeld : 1);
}

PlantedSpectrum half_marchenko_pastur(std::int64_t n) { return testing::marchenko_pastur(n); }

INSTANTIATE_TEST_SUITE_P(Planted, TraceCoverage,
                         ::testing::Values(Case{"OutliersAndBulk", testing::outliers_and_bulk},
                                           Case{"NegativeOutliers", testing::negative_outliers},
                                           Case{"LowRank", testing::low_rank}, Case{"PowerLaw", testing::power_law},
                                           Case{"MarchenkoPastur", half_marchenko_pastur},
                                           Case{"Semicircle", testing::semicircle}, Case{"Clusters", testing::clusters},
                                           Case{"Multiplicities", testing::multiplicities},
                                           Case{"Pairs", testing::pairs}, Case{"AllZeros", testing::all_zeros}),
                         [](const ::testing::TestParamInfo<Case>& c) { return std::string(c.param.name); });

// The default distribution, on eigenvectors that have no more to do with coordinates than chance makes them.
TEST(TraceCoverageDense, Rademacher) {
  for (const auto make : {testing::outliers_and_bulk, testing::power_law, half_marchenko_pastur}) {
    const PlantedSpectrum spectrum = make(300);
    testing::DenseOperator op(local, testing::matrix_with_spectrum(spectrum.values, 7));
    const Tally tally = deflated_tally(spectrum, op, ProbeDistribution::kRademacher, kSeeds, 0.01, 30, 600);
    EXPECT_GE(tally.held, kHeld);
    EXPECT_EQ(tally.converged, kSeeds);
  }
}

}  // namespace
}  // namespace hesspect::trace_coverage_test
