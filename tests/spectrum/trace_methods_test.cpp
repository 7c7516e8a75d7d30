// Hutch++ and XTrace against their definitions, written down densely, and against traces that are known.
#include "hesspect/spectrum/trace_methods.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/trace.h"
#include "krylov/test_operators.h"

namespace hesspect::trace_methods_test {
namespace {

using testing::DenseOperator;

constexpr ProbeDistribution kAll[] = {ProbeDistribution::kRademacher, ProbeDistribution::kGaussian,
                                      ProbeDistribution::kSpherical};

using Method = TraceEstimate (*)(LinearOperator&, const TraceMethodOptions&, const std::function<void()>&);

double trace_of(const at::Tensor& matrix) { return at::trace(matrix.to(at::kDouble)).item<double>(); }

/// Probes [n, count], whole, as columns.
at::Tensor probes(std::int64_t n, const TraceMethodOptions& options, const std::vector<int>& numbers) {
  LocalCommunicator alone;
  const testing::DiagonalOperator op(alone, n, at::kDouble, [](std::int64_t) { return 1.0; });
  std::vector<at::Tensor> all;
  for (const int number : numbers)
    all.push_back(
        probe_vector(op, options.distribution, options.seed, options.first_probe + static_cast<std::uint64_t>(number)));
  return at::stack(all, 1);
}

at::Tensor orthonormal(const at::Tensor& columns) { return std::get<0>(at::linalg_qr(columns)); }

/// A spectrum that decays, with negative values.
std::vector<double> decaying(int n, double power) {
  std::vector<double> values;
  for (int i = 0; i < n; ++i) values.push_back((i % 4 == 3 ? -0.3 : 1) * std::pow(i + 1.0, -power));
  return values;
}

class TraceMethods : public ::testing::Test {
 protected:
  std::unique_ptr<MpiCommunicator> world_ = MpiCommunicator::world();
  LocalCommunicator alone_;
};

TEST_F(TraceMethods, XTraceIsItsDefinition) {
  const std::int64_t n = 70;
  const at::Tensor a = testing::matrix_with_spectrum(decaying(n, 1), 51);
  for (const ProbeDistribution distribution : kAll)
    for (const int vectors : {3, 13}) {  // in one round, and in two
      const TraceMethodOptions options{
          .distribution = distribution, .seed = 7, .first_probe = 5, .rtol = 0, .max_products = 2 * vectors};
      std::vector<int> numbers(static_cast<std::size_t>(vectors));
      for (int i = 0; i < vectors; ++i) numbers[static_cast<std::size_t>(i)] = i;
      const at::Tensor omega = probes(n, options, numbers), y = at::mm(a, omega);
      at::Tensor estimates = at::empty({vectors}, at::kDouble);
      for (int i = 0; i < vectors; ++i) {
        const at::Tensor others = at::cat({y.narrow(1, 0, i), y.narrow(1, i + 1, vectors - 1 - i)}, 1);
        const at::Tensor q = orthonormal(others), w = omega.select(1, i);
        const at::Tensor rest = w - at::mv(q, at::mv(q.t(), w));
        double quadratic = at::dot(rest, at::mv(a, rest)).item<double>();
        if (distribution != ProbeDistribution::kRademacher)
          quadratic *= static_cast<double>(n - vectors + 1) / at::dot(rest, rest).item<double>();
        estimates[i] = trace_of(at::mm(q.t(), at::mm(a, q))) + quadratic;
      }
      DenseOperator op(*world_, a);
      const TraceEstimate trace = xtrace(op, options);
      EXPECT_NEAR(trace.value, at::mean(estimates).item<double>(), 1e-11);
      // The spread, and what xtrace.cpp adds for the estimates' sharing vectors and for stopping early.
      const double spread = at::std(estimates).item<double>() / std::sqrt(vectors);
      EXPECT_NEAR(trace.standard_error, (distribution == ProbeDistribution::kRademacher ? 1.5 : 1.25) * spread, 1e-11);
      EXPECT_NEAR(trace.half_width, 1.1 * student_quantile(0.9, vectors - 1) * trace.standard_error, 1e-12);
      EXPECT_EQ(trace.samples, vectors);
      EXPECT_EQ(trace.products, 2 * vectors);
      EXPECT_EQ(trace.deflated, vectors);
      EXPECT_EQ(op.products, 2 * vectors);
      EXPECT_EQ(trace.method, "xtrace");
      EXPECT_TRUE(trace.converged);
    }
}

/// A spectrum without negative values.
std::vector<double> positive(int n, double power) {
  std::vector<double> values;
  for (int i = 0; i < n; ++i) values.push_back(std::pow(i + 1.0, -power));
  return values;
}

/// XNysTrace's mean by its definition: Nyström approximations of A without one column each, and what is left of it.
double nystrom_mean(const at::Tensor& a, const at::Tensor& omega) {
  const std::int64_t n = a.size(0), vectors = omega.size(1);
  double sum = 0;
  for (std::int64_t i = 0; i < vectors; ++i) {
    const at::Tensor others = at::cat({omega.narrow(1, 0, i), omega.narrow(1, i + 1, vectors - 1 - i)}, 1);
    const at::Tensor y = at::mm(a, others), w = omega.select(1, i);
    const at::Tensor nystrom = at::mm(y, at::linalg_solve(at::mm(others.t(), y), y.t()));
    const at::Tensor q = orthonormal(others), rest = w - at::mv(q, at::mv(q.t(), w));
    sum += trace_of(nystrom) + at::dot(w, at::mv(a - nystrom, w)).item<double>() *
                                   static_cast<double>(n - vectors + 1) / at::dot(rest, rest).item<double>();
  }
  return sum / static_cast<double>(vectors);
}

TEST_F(TraceMethods, XNysTraceIsItsDefinition) {
  const std::int64_t n = 70;
  const at::Tensor a = testing::matrix_with_spectrum(positive(n, 1), 51);
  for (const int vectors : {3, 8, 21}) {  // in one round, and in more
    TraceMethodOptions options{.seed = 7, .first_probe = 5, .rtol = 0, .max_products = vectors};
    DenseOperator op(*world_, a);
    const TraceEstimate trace = xnystrace(op, options);
    options.distribution = ProbeDistribution::kSpherical;
    std::vector<int> numbers(static_cast<std::size_t>(vectors));
    for (int i = 0; i < vectors; ++i) numbers[static_cast<std::size_t>(i)] = i;
    const at::Tensor omega = probes(n, options, numbers);
    EXPECT_NEAR(trace.value, nystrom_mean(a, omega), 1e-10);
    // The jackknife: the same without one of the vectors at all.
    at::Tensor without = at::empty({vectors}, at::kDouble);
    for (int j = 0; j < vectors; ++j)
      without[j] = nystrom_mean(a, at::cat({omega.narrow(1, 0, j), omega.narrow(1, j + 1, vectors - 1 - j)}, 1));
    const double variance =
        (without - without.mean()).square().sum().item<double>() * (vectors - 1) / static_cast<double>(vectors);
    EXPECT_NEAR(trace.standard_error, std::sqrt(variance), 1e-9);
    EXPECT_NEAR(trace.half_width, 1.1 * student_quantile(0.9, vectors - 1) * trace.standard_error, 1e-12);
    EXPECT_EQ(trace.samples, vectors);
    EXPECT_EQ(op.products, vectors);
    EXPECT_EQ(trace.products, vectors);
    EXPECT_EQ(trace.deflated, vectors);
    EXPECT_EQ(trace.method, "xnystrace");
    EXPECT_TRUE(trace.converged);
  }
}

TEST_F(TraceMethods, XNysTraceOfLowRankIsExact) {
  for (const int rank : {0, 1, 3, 7, 12}) {
    if (world_->size() > 1 && rank != 7) continue;
    std::vector<double> values(150, 0.0);
    for (int i = 0; i < rank; ++i) values[static_cast<std::size_t>(i)] = 1.0 + i;
    const at::Tensor a = testing::matrix_with_spectrum(values, 53);
    DenseOperator op(*world_, a), narrow(*world_, a.to(at::kFloat));
    const TraceEstimate trace = xnystrace(op, {.seed = 9, .rtol = 1e-8, .max_products = 90});
    EXPECT_NEAR(trace.value, trace_of(a), 1e-9) << rank;
    EXPECT_TRUE(trace.converged || rank == 0) << rank;
    EXPECT_LT(trace.products, 60);
    const TraceEstimate single = xnystrace(narrow, {.seed = 9, .rtol = 1e-3, .max_products = 90});
    EXPECT_NEAR(single.value, trace_of(a), 1e-3 * std::max(1.0, trace_of(a))) << rank;
    EXPECT_LT(single.products, 60);
  }
}

TEST_F(TraceMethods, XNysTraceOfAllDimensions) {
  const at::Tensor b = testing::gaussian_matrix(6, 54), a = at::mm(b, b.t());
  DenseOperator op(*world_, a);
  const TraceEstimate trace = xnystrace(op, {.rtol = 0, .max_products = 50});
  EXPECT_EQ(trace.products, 6);
  EXPECT_LE(std::abs(trace.value - trace_of(a)), trace.half_width);
}

TEST_F(TraceMethods, XNysTraceWantsNoNegativeEigenvalue) {
  std::vector<double> values = positive(60, 1);
  values[3] = -0.2;
  DenseOperator op(*world_, testing::matrix_with_spectrum(values, 57));
  EXPECT_THROW(xnystrace(op, {.rtol = 0, .max_products = 40}, {}), NumericalError);
  EXPECT_THROW(xnystrace(op, {.max_products = 1}, {}), UsageError);
}

TEST_F(TraceMethods, HutchPlusPlusIsItsDefinition) {
  const std::int64_t n = 70;
  const at::Tensor a = testing::matrix_with_spectrum(decaying(n, 1), 52);
  for (const ProbeDistribution distribution : kAll)
    for (const int rounds : {1, 3}) {
      const TraceMethodOptions options{
          .distribution = distribution, .seed = 8, .first_probe = 2, .rtol = 0, .max_products = 12 * rounds + 2};
      std::vector<int> sketch, rest;  // four and four in turn
      for (int i = 0; i < 8 * rounds; ++i) (i % 8 < 4 ? sketch : rest).push_back(i);
      const at::Tensor q = orthonormal(at::mm(a, probes(n, options, sketch))), z = probes(n, options, rest);
      const at::Tensor left = z - at::mm(q, at::mm(q.t(), z)), image = at::mm(a, left);
      const at::Tensor remainder = image - at::mm(q, at::mm(q.t(), image));
      std::vector<DeflatedSample> samples;
      for (std::int64_t i = 0; i < z.size(1); ++i)
        samples.push_back({i,
                           at::dot(z.select(1, i), remainder.select(1, i)).item<double>(),
                           at::dot(remainder.select(1, i), remainder.select(1, i)).item<double>(),
                           {}});
      const double captured = trace_of(at::mm(q.t(), at::mm(a, q)));
      const TraceEstimate expected = trace_estimate(captured, samples, {.rtol = 0, .confidence = 0.9});
      DenseOperator op(*world_, a);
      const TraceEstimate trace = hutch_plus_plus(op, options);
      EXPECT_NEAR(trace.value, expected.value, 1e-11);
      EXPECT_NEAR(trace.captured, captured, 1e-11);
      EXPECT_NEAR(trace.standard_error, expected.standard_error, 1e-11);
      // Wider where samples are few.
      const double wider = rounds == 1 ? student_quantile(0.9, 2) / normal_quantile(0.9)
                                       : student_quantile(0.9, 6) / normal_quantile(0.9);
      EXPECT_NEAR(trace.half_width, wider * expected.half_width, 1e-11);
      EXPECT_EQ(trace.samples, 4 * rounds);
      EXPECT_EQ(trace.deflated, 4 * rounds);
      EXPECT_EQ(trace.products, 12 * rounds);
      EXPECT_EQ(op.products, 12 * rounds);
      EXPECT_EQ(trace.method, "hutch++");
    }
}

TEST_F(TraceMethods, LowRankIsExactAndSoonKnown) {
  for (const Method method : {xtrace, hutch_plus_plus})
    for (const ProbeDistribution distribution : kAll)
      for (const int rank : {0, 1, 3, 7, 12}) {
        if (world_->size() > 1 && rank != 7) continue;
        std::vector<double> values(150, 0.0);
        for (int i = 0; i < rank; ++i) values[static_cast<std::size_t>(i)] = i % 3 == 2 ? -2 : 1.0 + i;
        const at::Tensor a = testing::matrix_with_spectrum(values, 53);
        DenseOperator op(*world_, a);
        const TraceEstimate trace =
            method(op, {.distribution = distribution, .seed = 9, .rtol = 1e-8, .max_products = 90}, {});
        EXPECT_NEAR(trace.value, trace_of(a), 1e-10) << rank;
        EXPECT_LE(std::abs(trace.value - trace_of(a)), trace.half_width + 1e-10);
        EXPECT_TRUE(trace.converged || rank == 0) << rank;
        EXPECT_LT(trace.products, 60);

        DenseOperator narrow(*world_, a.to(at::kFloat));
        const TraceEstimate single =
            method(narrow, {.distribution = distribution, .seed = 9, .rtol = 1e-4, .max_products = 90}, {});
        EXPECT_NEAR(single.value, trace_of(a), 2e-4) << rank;
        EXPECT_LT(single.products, 60);
      }
}

TEST_F(TraceMethods, AllDimensionsAreEnough) {
  const at::Tensor a = testing::gaussian_matrix(6, 54);
  for (const Method method : {xtrace, hutch_plus_plus})
    for (const ProbeDistribution distribution : kAll) {
      DenseOperator op(*world_, a);
      const TraceEstimate trace = method(op, {.distribution = distribution, .rtol = 0, .max_products = 50}, {});
      EXPECT_NEAR(trace.value, trace_of(a), 1e-12);
      EXPECT_EQ(trace.deflated, 6);
      EXPECT_LT(trace.half_width, 1e-12);
    }
}

/// What many seeds say of a method at so many products.
struct Trials {
  double mean_off = 0, standard_error = 0, rms = 0;
  int covered = 0;
};

Trials trials(LinearOperator& op, Method method, TraceMethodOptions options, double exact, int count) {
  Trials all;
  double sum = 0, square = 0;
  for (int seed = 0; seed < count; ++seed) {
    options.seed = 1000 + static_cast<std::uint64_t>(seed);
    const TraceEstimate trace = method(op, options, {});
    sum += trace.value - exact;
    square += (trace.value - exact) * (trace.value - exact);
    all.covered += std::abs(trace.value - exact) <= trace.half_width ? 1 : 0;
  }
  all.mean_off = sum / count;
  all.rms = std::sqrt(square / count);
  all.standard_error = all.rms / std::sqrt(count);
  return all;
}

struct Case {
  Method method;
  ProbeDistribution distribution;
};
constexpr Case kCases[] = {{xtrace, ProbeDistribution::kRademacher},
                           {xtrace, ProbeDistribution::kSpherical},
                           {hutch_plus_plus, ProbeDistribution::kRademacher},
                           {hutch_plus_plus, ProbeDistribution::kSpherical}};

TEST_F(TraceMethods, UnbiasedAndFarBelowHutchinsonsSpread) {
  if (world_->size() > 1) GTEST_SKIP() << "the same as on one rank";
  const at::Tensor a = testing::matrix_with_spectrum(decaying(200, 1.5), 55);
  DenseOperator op(alone_, a);
  for (const auto& [method, distribution] : kCases) {
    const Trials few =
        trials(op, method, {.distribution = distribution, .rtol = 0, .max_products = 12}, trace_of(a), 100);
    EXPECT_LT(std::abs(few.mean_off), 4 * few.standard_error);
    const Trials more =
        trials(op, method, {.distribution = distribution, .rtol = 0, .max_products = 60}, trace_of(a), 40);
    EXPECT_LT(more.rms, 0.1 * at::norm(a).item<double>() * std::sqrt(2.0 / 60));
  }
}

// Looking in between, and stopping early, must not cost the interval's confidence.
TEST_F(TraceMethods, IntervalsHold) {
  if (world_->size() > 1) GTEST_SKIP() << "the same as on one rank";
  for (const double power : {0.5, 1.5}) {
    const at::Tensor a = testing::matrix_with_spectrum(decaying(200, power), 55);
    DenseOperator op(alone_, a);
    for (const auto& [method, distribution] : kCases)
      for (const double rtol : {0.0, power > 1 ? 0.01 : 0.1}) {
        const TraceMethodOptions options{
            .distribution = distribution, .rtol = rtol, .max_products = rtol > 0 ? 150 : 30};
        EXPECT_GE(trials(op, method, options, trace_of(a), 100).covered, 88)
            << power << " " << rtol << " " << (method == static_cast<Method>(xtrace) ? "xtrace " : "hutch++ ")
            << to_string(distribution);
      }
  }
}

TEST_F(TraceMethods, XNysTraceIsUnbiasedAndItsIntervalsHold) {
  if (world_->size() > 1) GTEST_SKIP() << "the same as on one rank";
  for (const double power : {0.5, 1.0, 2.0}) {
    const at::Tensor a = testing::matrix_with_spectrum(positive(200, power), 55);
    DenseOperator op(alone_, a);
    for (const std::int64_t products : {8, 30}) {
      const Trials all = trials(op, xnystrace, {.rtol = 0, .max_products = products}, trace_of(a), 100);
      EXPECT_LT(std::abs(all.mean_off), 4 * all.standard_error) << power;
      EXPECT_GE(all.covered, 88) << power << ", " << products << " products";
      if (power < 1.5) continue;
      const Trials half = trials(op, xtrace, {.rtol = 0, .max_products = products}, trace_of(a), 100);
      EXPECT_LT(all.rms, half.rms) << "XTrace gets half as many vectors for its products";
    }
    const Trials stopped =
        trials(op, xnystrace, {.rtol = power > 1 ? 0.01 : 0.1, .max_products = 150}, trace_of(a), 100);
    EXPECT_GE(stopped.covered, 88) << power << ", stopped early";
  }
}

TEST_F(TraceMethods, XNysTraceDoesNotDependOnRanks) {
  const at::Tensor b = testing::gaussian_matrix(101, 56), a = at::mm(b, b.t());
  DenseOperator one(alone_, a), many(*world_, a);
  const TraceMethodOptions options{.seed = 3, .rtol = 0.03, .max_products = 200};
  const TraceEstimate x = xnystrace(one, options), y = xnystrace(many, options);
  EXPECT_EQ(x.products, y.products);
  EXPECT_NEAR(x.value, y.value, 1e-8 * x.value);
  EXPECT_NEAR(x.half_width, y.half_width, 1e-6 * x.value);
}

TEST_F(TraceMethods, ResultsDoNotDependOnRanks) {
  const at::Tensor a = testing::gaussian_matrix(101, 56) + at::diag(at::arange(0, 101, at::kDouble) / 10);
  for (const Method method : {xtrace, hutch_plus_plus})
    for (const ProbeDistribution distribution : kAll) {
      DenseOperator one(alone_, a), many(*world_, a);
      const TraceMethodOptions options{.distribution = distribution, .seed = 3, .rtol = 0.03, .max_products = 200};
      int calls = 0;
      const TraceEstimate x = method(one, options, {}), y = method(many, options, [&] { ++calls; });
      EXPECT_EQ(x.products, y.products);
      EXPECT_EQ(many.products, y.products);
      EXPECT_GT(calls, 0);
      EXPECT_NEAR(x.value, y.value, 1e-9);
      EXPECT_NEAR(x.half_width, y.half_width, 1e-9);
      EXPECT_TRUE(y.converged);
    }
}

TEST_F(TraceMethods, WhatCantBeIsTold) {
  at::Tensor a = testing::gaussian_matrix(40, 57);
  a[39][39] = std::numeric_limits<double>::quiet_NaN();
  DenseOperator op(*world_, a);
  for (const Method method : {xtrace, hutch_plus_plus}) {
    EXPECT_THROW(method(op, {}, {}), NumericalError);
    EXPECT_THROW(method(op, {.max_products = 2}, {}), UsageError);
  }
  DenseOperator small(*world_, testing::gaussian_matrix(40, 58));
  for (const std::int64_t products : {4, 5, 6, 7}) {  // the fewest there may be
    EXPECT_LE(xtrace(small, {.rtol = 0, .max_products = products}).products, products);
    EXPECT_LE(hutch_plus_plus(small, {.rtol = 0, .max_products = products - 1}).products, products - 1);
  }
}

}  // namespace
}  // namespace hesspect::trace_methods_test
