// Results whose numbers are nonsense, as a damaged file may hold and the reader lets pass: reports and comparisons end
// with a text or with an error of ours, and no page holds a number that is none.
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "hesspect/core/errors.h"
#include "hesspect/report/compare.h"
#include "hesspect/report/report.h"
#include "report/known_result.h"

namespace hesspect::hostile_result_test {
namespace {

RunResult whole_result() {
  RunResult r = testing::known_result({10, 8, 6, 4, 2, 0.5, 0.1, 0, -0.2, -1});
  ProbeQuadrature& q = r.quadrature.front();
  q.breakdown = false;  // so that there is something to estimate
  q.beta.assign(9, 0.7);
  q.beta_last = 0.3;
  r.cumulative = cumulative_density(r.quadrature, 50);
  r.diagnostics.parameters = 50;
  r.trace = TraceEstimate{29.5, 0.1, 0.2, 0.9, 4, 2, 0, 0, "hutchinson", true};
  r.layers = {{"a", 3, {1.5, 0.1}}, {"b", 4, {-0.5, 0.1}}};
  r.density = Density{{-1, 0, 2, 11}, {0.1, 1, 0.1, 0}, {0, 0.1, 0, 0}, 0.1};
  r.process.config = "label-smoothing = 0\n";
  return r;
}

/// Every number that a file can have wrong: grids, nodes and weights are checked by the reader.
std::vector<double*> numbers_of(RunResult& r) {
  std::vector<double*> all;
  for (auto* list : {&r.eigenvalues->top, &r.eigenvalues->bottom})
    for (EigenEstimate& e : *list) all.insert(all.end(), {&e.value, &e.residual, &e.true_residual, &e.error});
  CumulativeDensity& c = *r.cumulative;
  for (auto* values : {&c.cumulative, &c.lower, &c.upper})
    for (double& x : *values) all.push_back(&x);
  all.insert(all.end(), {&c.confidence, &c.w1, &c.w1_sampling, &c.w1_quadrature, &c.range_lo, &c.range_hi,
                         &c.zero_width, &c.negative_mass.value, &c.negative_mass.standard_error});
  TraceEstimate& t = *r.trace;
  all.insert(all.end(), {&t.value, &t.standard_error, &t.half_width, &t.confidence});
  for (LayerEstimate& layer : r.layers) all.insert(all.end(), {&layer.trace.value, &layer.trace.standard_error});
  for (double& x : r.density->density) all.push_back(&x);
  for (double& x : r.density->density_errors) all.push_back(&x);
  for (double& x : r.quadrature.front().alpha) all.push_back(&x);
  for (double& x : r.quadrature.front().beta) all.push_back(&x);
  all.insert(all.end(), {&r.density->sigma, &r.quadrature.front().beta_last, &r.diagnostics.loss,
                         &r.diagnostics.gradient_norm, &r.diagnostics.precision.moved});
  return all;
}

void expect_sound(const std::string& html) {
  for (const char* piece : {"\"nan", "\"-nan", "\"inf", "\"-inf", "Mnan", "Lnan", ">nan", ">-nan"})
    if (const auto at = html.find(piece); at != std::string::npos)
      ADD_FAILURE() << piece << ": " << html.substr(at > 150 ? at - 150 : 0, 200);
}

TEST(HostileResult, EndsWithATextOrAnError) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const std::vector<double> strange = {0, -1, 1, kInf, -kInf, std::nan(""), 1e308, -1e308, 5e-324, 1e-200, 1e30};
  std::mt19937 random(7);
  int told = 0, refused = 0;
  for (int trial = 0; trial < 400; ++trial) {
    RunResult r = whole_result();
    const std::vector<double*> numbers = numbers_of(r);
    for (int changes = 1 + static_cast<int>(random() % 4); changes > 0; --changes)
      *numbers[random() % numbers.size()] = strange[random() % strange.size()];
    if (random() % 8 == 0) r.diagnostics.parameters = static_cast<std::int64_t>(random() % 12) - 1;
    if (random() % 8 == 0) r.trace->samples = static_cast<std::int64_t>(random() % 3) - 1;
    if (random() % 8 == 0) r.layers.front().size = 0;
    try {
      expect_sound(report_html({{"r.h5", r}}, {}));
      (void)report_text({{"r.h5", r}}, {});
      (void)report_json({{"r.h5", r}}, {0.5, 1e-3});
      const Comparison comparison = compare({{"a.h5", whole_result()}, {"r.h5", r}}, {}, true);
      (void)comparison_text(comparison);
      (void)comparison_json(comparison);
      ++told;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      ++refused;
    }
  }
  EXPECT_GT(told, 200);
  EXPECT_GT(refused, 5);
}

}  // namespace
}  // namespace hesspect::hostile_result_test
