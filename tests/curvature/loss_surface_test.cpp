// The loss beside the trained parameters, against PyTorch's loss, gradient and Hessian-vector product at them.
#include "hesspect/curvature/loss_surface.h"

#include <gtest/gtest.h>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/curvature/directions.h"
#include "support/fixture.h"

namespace hesspect::loss_surface_test {
namespace {

using test::Fixture;

struct Case {
  explicit Case(const std::string& name, ProductMode product = ProductMode::kAuto)
      : fixture(name),
        program(Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU})),
        world(MpiCommunicator::world()),
        op(program, fixture.shard(program, world->size(), world->rank()), *world, options_for(product)),
        surface(op) {}

  HessianOptions options_for(ProductMode product) const {
    HessianOptions options;
    options.loss = fixture.loss();
    options.output_index = fixture.output_index();
    options.micro_batch = 3;
    options.product = product;
    options.graph_budget_bytes = 1 << 30;
    return options;
  }
  at::Tensor reference(const std::string& quantity) const { return fixture.flat(program, at::kDouble, quantity); }
  at::Tensor local(const at::Tensor& whole) const { return shard_of(op, whole); }
  at::Tensor gathered(const at::Tensor& shard) const {
    at::Tensor full = at::empty({op.shard().padded()}, at::kDouble);
    op.comm().all_gather(shard, full);
    return full.narrow(0, 0, op.shard().n);
  }

  Fixture fixture;
  Program program;
  std::unique_ptr<MpiCommunicator> world;
  HessianOperator op;
  LossSurface surface;
};

class Surface : public ::testing::TestWithParam<const char*> {};

/// Of models without kinks, which a step of any size crosses.
class SmoothSurface : public ::testing::TestWithParam<const char*> {};

TEST_P(SmoothSurface, DifferencesArePyTorchsDerivatives) {
  Case c(GetParam());
  const at::Tensor v = c.reference("v"), gradient = c.reference("grad"), product = c.reference("hv");
  const double loss = c.fixture.reference("f64/loss").item<double>();
  EXPECT_NEAR(c.surface.loss(c.local(at::zeros_like(v))), loss, 1e-12 * std::max(1.0, std::abs(loss)));
  const double h = 1e-4 / v.abs().max().item<double>();
  const double up = c.surface.loss(c.local(h * v)), down = c.surface.loss(c.local(-h * v));
  const double slope = at::dot(gradient, v).item<double>(), bend = at::dot(v, product).item<double>();
  const double scale = std::abs(slope) + std::abs(bend) + std::abs(loss);
  EXPECT_NEAR((up - down) / (2 * h), slope, 1e-5 * scale);
  EXPECT_NEAR((up - 2 * loss + down) / (h * h), bend, 1e-4 * scale + 1e-14 * std::abs(loss) / (h * h));
  at::Tensor above = c.local(v), below = c.local(v);
  EXPECT_NEAR(c.surface.gradient(c.local(h * v), above), up, 1e-12 * std::max(1.0, std::abs(up)));
  c.surface.gradient(c.local(-h * v), below);
  const at::Tensor difference = c.gathered(above - below) / (2 * h);
  EXPECT_LE((difference - product).norm().item<double>(), 1e-5 * (product.norm() + gradient.norm()).item<double>());
  EXPECT_EQ(c.surface.losses(), 3);
  EXPECT_EQ(c.surface.gradients(), 2);
}

TEST_P(Surface, LeavesParametersAndProductsAsTheyWere) {
  for (const ProductMode product : {ProductMode::kKept, ProductMode::kAutograd}) {
    Case c(GetParam(), product);
    const at::Tensor before = c.program.flat_parameters().clone(), v = c.local(c.reference("v"));
    at::Tensor first = at::empty_like(v), second = at::empty_like(v), gradient = at::empty_like(v);
    c.op.apply(v, first);
    c.surface.loss(v);
    c.surface.gradient(v, gradient);
    EXPECT_TRUE(at::equal(c.program.flat_parameters(), before));
    c.op.apply(v, second);
    EXPECT_TRUE(at::equal(first, second));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SmoothSurface, ::testing::Values("mlp_ce", "vit", "gpt2", "complex_rotary"),
                         [](const auto& test) { return std::string(test.param); });
INSTANTIATE_TEST_SUITE_P(Models, Surface, ::testing::Values("cnn_bn", "gpt2", "widedeep", "complex_rotary"),
                         [](const auto& test) { return std::string(test.param); });

TEST(FilterNormalised, EachFilterHasItsOwnNorm) {
  Case c("cnn_bn");
  const at::Tensor d = c.gathered(filter_normalised(c.op, c.program, 3, 0));
  const at::Tensor other = c.gathered(filter_normalised(c.op, c.program, 3, 1));
  const at::Tensor flat = c.program.flat_parameters();
  std::int64_t filters = 0;
  for (const ParameterEntry& entry : c.program.layout().entries()) {
    const at::Tensor of_d = d.narrow(0, entry.offset, entry.numel),
                     of_theta = flat.narrow(0, entry.offset, entry.numel);
    if (entry.shape.size() < 2) {
      EXPECT_EQ(of_d.abs().max().item<double>(), 0) << entry.name;
      continue;
    }
    for (std::int64_t f = 0; f < entry.shape[0]; ++f, ++filters) {
      const double norm = of_theta.view({entry.shape[0], -1})[f].norm().item<double>();
      EXPECT_NEAR(of_d.view({entry.shape[0], -1})[f].norm().item<double>(), norm, 1e-12 * norm) << entry.name;
    }
  }
  EXPECT_GT(filters, 10);
  const double cosine = (at::dot(d, other) / d.norm() / other.norm()).item<double>();
  EXPECT_LT(std::abs(cosine), 0.5);
}

}  // namespace
}  // namespace hesspect::loss_surface_test
