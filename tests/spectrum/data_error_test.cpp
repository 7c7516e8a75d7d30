// The error that the data make: its formulas on small numbers, and how often its intervals hold the population's
// figures, where rows are drawn from a population whose matrix is known.
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "hesspect/spectrum/data_error.h"
#include "hesspect/spectrum/trace.h"

namespace hesspect::data_error_test {
namespace {

TEST(RatioError, IsThatOfAMeanWhereSharesAreEqual) {
  const std::vector<double> means{1, 2, 4, 9};
  std::vector<double> parts;
  for (const double mean : means) parts.push_back(mean / 4);
  // Of the mean of four numbers: their standard deviation over √4.
  EXPECT_NEAR(ratio_error(parts, std::vector<double>(4, 0.25)), std::sqrt((9 + 4 + 0 + 25) / 3.0 / 4), 1e-14);
}

TEST(RatioError, IsZeroWhereOnlyTheCountsDiffer) {
  const std::vector<double> share{0.1, 0.2, 0.3, 0.4}, parts{0.7, 1.4, 2.1, 2.8};
  EXPECT_NEAR(ratio_error(parts, share), 0, 1e-15);
}

// --- samples of a population ---

/// A row's matrix is w c xxᵀ / Σ w, c a curvature that may hang on the row: a mean of terms with weights w.
struct Population {
  at::Tensor x, weighted, weight;  // [rows, n], √(w c) x, [rows]
  at::Tensor matrix;               // of the population
};

/// Rows with the covariance's given square roots of eigenvalues in random directions.
Population population(const std::vector<double>& spectrum, std::int64_t rows, bool logistic, bool weighted) {
  at::manual_seed(7);
  const auto n = static_cast<std::int64_t>(spectrum.size());
  const at::Tensor rotation = std::get<0>(at::linalg_qr(at::randn({n, n}, at::kDouble)));
  const at::Tensor scale = at::tensor(spectrum, at::kDouble).sqrt();
  Population p;
  p.x = at::matmul(at::randn({rows, n}, at::kDouble) * scale, rotation.t());
  at::Tensor curvature = at::ones({rows}, at::kDouble);
  if (logistic) {
    const at::Tensor q = at::sigmoid(at::matmul(p.x, rotation.select(1, 0)));
    curvature = q * (1 - q);
  }
  // As sequences of different length: those that are long are not like the others.
  p.weight = weighted ? at::randint(1, 9, {rows}, at::kDouble) : at::ones({rows}, at::kDouble);
  if (weighted) curvature = curvature * (1 + p.weight / 8);
  p.weighted = p.x * (p.weight * curvature).sqrt().unsqueeze(1);
  p.matrix = at::matmul(p.weighted.t(), p.weighted) / p.weight.sum();
  return p;
}

struct Held {
  int trace = 0, largest = 0, told = 0, loss = 0, trace_of_probes = 0, layers = 0, layers_told = 0, sampled_trace = 0;
  int norm = 0, norm_told = 0;
};

at::Tensor eigenvalues_of(const at::Tensor& matrix) { return std::get<0>(at::linalg_eigh(matrix)); }

/// A run on rows drawn from the population, as hesspect makes it, in dense algebra.
void draw(const Population& p, std::int64_t rows, std::int64_t count, std::int64_t listed, std::uint64_t seed,
          Held& held) {
  at::manual_seed(seed);
  const std::int64_t n = p.matrix.size(0);
  const at::Tensor chosen = at::randint(0, p.x.size(0), {rows}, at::kLong);
  const at::Tensor a = p.weighted.index_select(0, chosen), w = p.weight.index_select(0, chosen);
  const double divisor = w.sum().item<double>();
  RowGroups groups;
  std::vector<at::Tensor> h;  // of each group
  for (std::int64_t g = 0; g < count; ++g) {
    const std::int64_t begin = rows * g / count, end = rows * (g + 1) / count;
    const at::Tensor part = a.narrow(0, begin, end - begin);
    h.push_back(at::matmul(part.t(), part) / divisor);
    groups.rows.push_back(end - begin);
    groups.share.push_back(w.narrow(0, begin, end - begin).sum().item<double>() / divisor);
    groups.loss.push_back(part.square().sum().item<double>() / divisor);  // any sum over rows is as good
  }
  const at::Tensor matrix = at::matmul(a.t(), a) / divisor;
  const auto [values, vectors] = at::linalg_eigh(matrix);
  const std::vector<std::int64_t> segments{0, n / 2, n};
  const at::Tensor z = 1 - 2 * at::randint(0, 2, {2, n}, at::kDouble);
  std::vector<TraceSample> samples;
  const auto dots_of = [&](const at::Tensor& with, const at::Tensor& x, std::vector<double>& to) {
    for (const at::Tensor& part : h) {
      const at::Tensor product = with * at::mv(part, x);
      for (std::size_t s = 0; s < 2; ++s)
        to.push_back(product.narrow(0, segments[s], segments[s + 1] - segments[s]).sum().item<double>());
    }
  };
  for (std::int64_t k = 0; k < 2; ++k) {
    TraceSample& sample = samples.emplace_back();
    dots_of(z[k], z[k], sample.groups);
  }
  EigenResult result;
  std::vector<GroupedProduct> products;
  for (std::int64_t i = 0; i < listed; ++i) {
    const at::Tensor u = vectors.select(1, n - 1 - i);
    result.top.push_back({.value = values[n - 1 - i].item<double>(), .converged = true});
    GroupedProduct& product = products.emplace_back();
    std::vector<double> of[3];
    dots_of(u, u, of[0]);
    for (std::int64_t k = 0; k < 2; ++k) dots_of(z[k], u, of[1 + k]);
    for (std::size_t g = 0; g < h.size(); ++g)
      for (const auto& each : of) product.dots.insert(product.dots.end(), {each[2 * g], each[2 * g + 1]});
    for (std::int64_t k = 0; k < 2; ++k) product.overlap.push_back(at::dot(u, z[k]).item<double>());
  }
  add_groups(products, groups.share, result);
  TraceEstimate trace;
  trace.value = matrix.trace().item<double>();
  trace.samples = 2;
  trace.half_width = 0;
  std::vector<LayerEstimate> layers;
  std::vector<double> truth;
  for (std::size_t s = 0; s < 2; ++s) {
    const auto of = [&](const at::Tensor& m) {
      return m.diagonal().narrow(0, segments[s], segments[s + 1] - segments[s]).sum().item<double>();
    };
    layers.push_back({"half", n / 2, {of(matrix), 0}});
    truth.push_back(of(p.matrix));
  }
  std::vector<double> ritz;
  for (std::int64_t i = 0; i < n; ++i) ritz.push_back(values[i].item<double>());
  const double loss = matrix.trace().item<double>(), trace_truth = p.matrix.trace().item<double>();
  DataErrorInputs in{.groups = groups,
                     .loss = loss,
                     .samples = samples,
                     .eigenvalues = &result,
                     .ritz = ritz,
                     .trace = &trace,
                     .layers = layers};
  const DataError e = estimate_data_error(in);
  const auto holds = [](const PopulationInterval& i, double value) {
    return i.known() && i.lower <= value && value <= i.upper;
  };
  held.trace += holds(e.trace, trace_truth) ? 1 : 0;
  held.loss += holds(e.loss, trace_truth) ? 1 : 0;
  if (e.eigenvalues.front().interval.known()) {
    ++held.told;
    held.largest += holds(e.eigenvalues.front().interval, eigenvalues_of(p.matrix)[n - 1].item<double>()) ? 1 : 0;
  }
  std::vector<double> found;
  for (const EigenEstimate& one : result.top) found.push_back(one.value);
  const double norm = matrix.norm().item<double>();
  double captured = 0;
  const PopulationInterval of_norm =
      norm_of_population({norm, norm, norm, 0.9, found, e.eigenvalues, groups.share}, captured);
  if (of_norm.known()) {
    ++held.norm_told;
    held.norm += holds(of_norm, p.matrix.norm().item<double>()) ? 1 : 0;
  }
  for (std::size_t s = 0; s < e.layers.size(); ++s) {
    ++held.layers_told;
    held.layers += holds(e.layers[s], truth[s]) ? 1 : 0;
  }
  // A trace that is itself known by probes.
  std::vector<DeflatedSample> few;
  for (std::int64_t k = 0; k < 12; ++k) {
    const at::Tensor probe = at::randn({n}, at::kDouble), product = at::mv(matrix, probe);
    few.push_back({k, at::dot(probe, product).item<double>(), product.square().sum().item<double>(), {}});
  }
  const TraceEstimate sampled = trace_estimate(0, few, {.confidence = 0.9});
  in.trace = &sampled;
  held.sampled_trace += holds(estimate_data_error(in).trace, trace_truth) ? 1 : 0;
  in.trace = &trace;
  in.eigenvalues = nullptr;
  held.trace_of_probes += holds(estimate_data_error(in).trace, trace_truth) ? 1 : 0;
}

struct Case {
  const char* name;
  std::vector<double> spectrum;
  bool logistic, weighted;
  std::int64_t rows, groups;
};

std::vector<double> with_bulk(std::vector<double> outliers, std::int64_t bulk, double size) {
  outliers.insert(outliers.end(), static_cast<std::size_t>(bulk), size);
  return outliers;
}

class DataErrorCoverage : public ::testing::TestWithParam<Case> {};

TEST_P(DataErrorCoverage, OfThePopulationsFigures) {
  const Case& c = GetParam();
  const char* asked = std::getenv("HESSPECT_DATA_SEEDS");
  const int seeds = asked != nullptr ? std::atoi(asked) : 300;
  const Population p = population(c.spectrum, 20'000, c.logistic, c.weighted);
  Held held;
  for (int seed = 0; seed < seeds; ++seed) draw(p, c.rows, c.groups, 3, 1000 + static_cast<std::uint64_t>(seed), held);
  std::printf(
      "%s: trace %d, largest %d of %d, loss %d, trace by probes alone %d, with the trace's own probes %d, layers %d of "
      "%d, norm %d of %d, in %d seeds\n",
      c.name, held.trace, held.largest, held.told, held.loss, held.trace_of_probes, held.sampled_trace, held.layers,
      held.layers_told, held.norm, held.norm_told, seeds);
  const double least = 0.88 * seeds;
  EXPECT_GE(held.trace, least);
  EXPECT_GE(held.loss, least);
  EXPECT_GE(held.trace_of_probes, least);
  EXPECT_GE(held.sampled_trace, least) << "both errors together";
  EXPECT_GE(held.told, (c.logistic ? 0.5 : 0.9) * seeds) << "the largest eigenvalue stands apart, or mostly does";
  EXPECT_GE(held.largest, 0.88 * held.told);
  EXPECT_GE(held.layers, 0.88 * held.layers_told);
  EXPECT_GE(held.norm_told, 0.9 * seeds);
  EXPECT_GE(held.norm, 0.88 * held.norm_told);
}

TEST(NormOfPopulation, IsNotToldWhereTheListedEigenvaluesAreLittleOfIt) {
  const std::vector<double> share(4, 0.25), values{3};
  std::vector<EigenDataError> errors(1);
  errors[0] = {{0.1, 2.5, 3.5}, 0, {2.9, 3.1, 3.0, 3.0}};
  double captured = 0;
  const PopulationInterval whole = norm_of_population({3, 3, 3, 0.9, values, errors, share}, captured);
  EXPECT_EQ(captured, 1);
  // d‖H‖ = dλ of a matrix with one eigenvalue.
  EXPECT_NEAR(whole.error, ratio_error(std::vector<double>{2.9 / 4, 3.1 / 4, 3.0 / 4, 3.0 / 4}, share), 1e-12);
  EXPECT_TRUE(whole.known());
  EXPECT_FALSE(norm_of_population({4, 4, 4, 0.9, values, errors, share}, captured).known());
  EXPECT_NEAR(captured, 9.0 / 16, 1e-12);
  errors[0].of_group.clear();
  EXPECT_FALSE(norm_of_population({3, 3, 3, 0.9, values, errors, share}, captured).known());
}

INSTANTIATE_TEST_SUITE_P(Populations, DataErrorCoverage,
                         ::testing::Values(Case{"outlier", with_bulk({10}, 23, 0.1), false, false, 512, 16},
                                           Case{"outliers", with_bulk({10, 4, 1.6, 0.6}, 20, 0.05), false, false, 512,
                                                16},
                                           Case{"many_groups", with_bulk({10, 3}, 22, 0.1), false, false, 1024, 32},
                                           Case{"few_groups", with_bulk({10, 3}, 22, 0.1), false, false, 400, 8},
                                           Case{"logistic", with_bulk({8, 2}, 22, 0.1), true, false, 1024, 16},
                                           Case{"counts", with_bulk({10, 3}, 22, 0.1), false, true, 1024, 16}),
                         [](const auto& test) { return std::string(test.param.name); });

// Eigenvalues that data would exchange are given no interval.
TEST(DataErrors, OfEigenvaluesThatDoNotStandApartAreNotTold) {
  RowGroups groups{{1, 1, 1, 1}, {0.25, 0.25, 0.25, 0.25}, {0.25, 0.25, 0.25, 0.25}};
  EigenResult result;
  for (const double value : {5.0, 4.9, 1.0}) result.top.push_back({.value = value});
  std::vector<GroupedProduct> products(3, {{1, 2, 1, 1}, {}});
  add_groups(products, groups.share, result);
  DataErrorInputs in{.groups = groups, .loss = 1, .samples = {}, .eigenvalues = &result, .ritz = {}, .layers = {}};
  const DataError e = estimate_data_error(in);
  ASSERT_EQ(e.eigenvalues.size(), 3u);
  EXPECT_GT(e.eigenvalues[0].interval.error, 0);
  EXPECT_FALSE(e.eigenvalues[0].interval.known());
  EXPECT_FALSE(e.eigenvalues[1].interval.known());
  EXPECT_FALSE(e.eigenvalues[2].interval.known()) << "its neighbour is not known";
  const std::vector<double> ritz{-8.0, 1.0, 4.9, 5.0};
  in.ritz = ritz;
  EXPECT_TRUE(estimate_data_error(in).eigenvalues[2].interval.known());
  EXPECT_FALSE(estimate_data_error(in).trace.known());
}

}  // namespace
}  // namespace hesspect::data_error_test
