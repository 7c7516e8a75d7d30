// Products in bfloat16, where the CPU has units for them: how far they are from full precision, that the operator says
// so, and that nothing of it is left in full precision.
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/tangent/precision.h"
#include "support/fixture.h"

namespace hesspect::precision_test {
namespace {

using test::Fixture;

constexpr std::int64_t kKept = std::int64_t{1} << 30;
constexpr std::int64_t kCopies = 16;  // of the fixture's rows: small products of matrices are not rounded

struct Case {
  Fixture fixture;
  Program program;
  std::unique_ptr<Communicator> world = MpiCommunicator::world();
  HessianOptions options;

  explicit Case(const std::string& name)
      : fixture(name), program(Program::load(fixture.path(".pt2"), {at::kFloat, at::kCPU})) {
    options.loss = fixture.loss();
    options.output_index = fixture.output_index();
    options.micro_batch = 3 * kCopies;
    options.graph_budget_bytes = kKept;
    options.check_double_backward = false;
  }
  std::unique_ptr<HessianOperator> hessian(MatrixPrecision precision) {
    options.precision = precision;
    DataShard data = fixture.shard(program, world->size(), world->rank());
    for (at::Tensor& input : data.inputs) input = at::cat(std::vector<at::Tensor>(kCopies, input));
    data.target = at::cat(std::vector<at::Tensor>(kCopies, data.target));
    data.rows = {kCopies * data.rows.begin, kCopies * data.rows.end};
    data.global_rows *= kCopies;
    return std::make_unique<HessianOperator>(program, std::move(data), *world, options);
  }
};

at::Tensor product(HessianOperator& op, const at::Tensor& x) {
  at::Tensor y = at::empty_like(x);
  op.apply(x, y);
  return y;
}

/// This rank's shard of a probe.
at::Tensor probe(const HessianOperator& op, std::uint64_t number) {
  const Shard& shard = op.shard();
  at::Tensor v = at::zeros({shard.chunk}, op.options());
  fill_probe(ProbeDistribution::kRademacher, 0, number, shard.begin(), shard.size(), v.mutable_data_ptr<float>());
  return v;
}

double dot(const HessianOperator& op, const at::Tensor& a, const at::Tensor& b) {
  return op.comm().sum(at::dot(a.to(at::kDouble), b.to(at::kDouble)).item<double>());
}

double distance(const HessianOperator& op, const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor d = a.to(at::kDouble) - b.to(at::kDouble);
  return std::sqrt(dot(op, d, d) / dot(op, b, b));
}

class Precision : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!matrix_units(at::kCPU).bf16) GTEST_SKIP() << matrix_units(at::kCPU).lack;
  }
};

TEST_P(Precision, ProductsDifferByBfloat16sRoundingAndSaySo) {
  Case c(GetParam());
  for (const ProductMode mode :
       {ProductMode::kKept, ProductMode::kRebuilt, ProductMode::kSegments, ProductMode::kAutograd}) {
    SCOPED_TRACE(to_string(mode));
    c.options.product = mode;
    const auto full = c.hessian(MatrixPrecision::kFp32), low = c.hessian(MatrixPrecision::kBf16);
    EXPECT_EQ(full->precision_effect().error, 0);
    EXPECT_EQ(low->stats().products, 0) << "what measures the precision is no product of the run's";
    const at::Tensor v = probe(*full, kPrecisionProbe), exact = product(*full, v), y = product(*low, v);
    const at::Tensor w = exact / std::sqrt(dot(*full, exact, exact)), exact_w = product(*full, w);
    const at::Tensor y_w = product(*low, w);
    const double error = distance(*full, y, exact), leading = distance(*full, y_w, exact_w);
    EXPECT_GT(error, 1e-5);
    EXPECT_LT(error, 2e-2);
    // Full precision's own rounding, where what is kept and what is rebuilt differ by it.
    constexpr double kRounding = 1e-6;
    const PrecisionEffect& said = low->precision_effect();
    EXPECT_NEAR(said.error, error, kRounding);
    EXPECT_NEAR(said.leading_error, leading, kRounding);
    const double scale = dot(*full, v, exact), scale_w = dot(*full, w, exact_w);
    const double norm = std::sqrt(dot(*full, exact, exact)), norm_v = std::sqrt(dot(*full, v, v));
    EXPECT_NEAR(said.rayleigh_error, std::abs((dot(*full, v, y) - scale) / scale), kRounding * norm * norm_v / scale);
    EXPECT_NEAR(said.leading_rayleigh_error, std::abs((dot(*full, w, y_w) - scale_w) / scale_w), kRounding);
    EXPECT_GT(said.time, 0);
    EXPECT_NEAR(said.moved, error * norm / norm_v, kRounding * norm / norm_v);
    // Loss and gradient are in full precision.
    EXPECT_EQ(low->loss(), full->loss());
    EXPECT_TRUE(at::equal(low->gradient(), full->gradient()));
  }
}

TEST_P(Precision, NothingOfItIsLeftInFullPrecision) {
  Case c(GetParam());
  const auto full = c.hessian(MatrixPrecision::kFp32);
  const at::Tensor v = probe(*full, 5), exact = product(*full, v);
  const auto low = c.hessian(MatrixPrecision::kBf16);
  const at::Tensor y = product(*low, v);
  const std::int64_t kept = low->stats().kept_graphs;
  EXPECT_GT(kept, 0);
  low->set_precision(MatrixPrecision::kFp32);
  EXPECT_TRUE(at::equal(product(*low, v), exact));
  EXPECT_EQ(low->stats().kept_graphs, kept);
  EXPECT_TRUE(at::equal(product(*full, v), exact)) << "another operator in the same process";
  low->set_precision(MatrixPrecision::kBf16);
  EXPECT_TRUE(at::equal(product(*low, v), y));
}

INSTANTIATE_TEST_SUITE_P(Models, Precision, ::testing::Values("gpt2"));

}  // namespace
}  // namespace hesspect::precision_test
