// Rules of ops that reduce over dimensions.
#include "op_check.h"

namespace hesspect::test::reduction_rules_test {
namespace {

using Ints = std::vector<std::int64_t>;
using Outputs = std::vector<std::size_t>;
const c10::IValue kNone;

TEST(ReductionRules, SumAndMean) {
  const at::Tensor x = numbers({3, 4, 5});
  for (const std::string op : {"aten::sum", "aten::mean"}) {
    expect_as_autograd({.op = op, .arguments = {x}, .active = {0}});
    expect_as_autograd({.op = op, .arguments = {numbers({})}, .active = {0}});
    const std::string by_dim = op + (op == "aten::sum" ? ".dim_IntList" : ".dim");
    for (const bool keeps : {false, true}) {
      expect_as_autograd({.op = by_dim, .arguments = {x, Ints{1}, keeps}, .active = {0}});
      expect_as_autograd({.op = by_dim, .arguments = {x, Ints{-1, 0}, keeps}, .active = {0}});
      expect_as_autograd({.op = by_dim, .arguments = {x, kNone, keeps}, .active = {0}});
    }
    expect_as_autograd({.op = by_dim, .arguments = {numbers({3, 1, 2}), Ints{1}}, .active = {0}});
  }
  const auto wide = static_cast<std::int64_t>(at::kDouble);
  expect_as_autograd({.op = "aten::sum.dim_IntList", .arguments = {x, Ints{1}, false, wide}, .active = {0}});
}

TEST(ReductionRules, Variance) {
  const at::Tensor x = numbers({3, 4, 5});
  for (const std::string op : {"aten::var", "aten::std", "aten::var_mean"}) {
    const Outputs read = op == "aten::var_mean" ? Outputs{0, 1} : Outputs{0};
    expect_as_autograd({.op = op, .arguments = {x}, .active = {0}, .read = read});
    expect_as_autograd({.op = op, .arguments = {x, false}, .active = {0}, .read = read});
    expect_as_autograd({.op = op + ".dim", .arguments = {x, Ints{1}, true, true}, .active = {0}, .read = read});
    expect_as_autograd({.op = op + ".correction", .arguments = {x, Ints{0, 2}, 0}, .active = {0}, .read = read});
    expect_as_autograd({.op = op + ".correction", .arguments = {x, Ints{-1}, 2, true}, .active = {0}, .read = read});
    expect_refused({.op = op + ".correction", .arguments = {x, Ints{-1}, 5}, .active = {0}, .read = read});
  }
  expect_as_autograd({.op = "aten::var_mean", .arguments = {x}, .active = {0}, .read = {1}});
}

TEST(ReductionRules, Norms) {
  at::Tensor x = numbers({3, 4, 5});
  x[1][2].fill_(0);
  expect_as_autograd({.op = "aten::norm.Scalar", .arguments = {x}, .active = {0}});
  expect_as_autograd({.op = "aten::norm.ScalarOpt_dim", .arguments = {x, 2, Ints{-1}, true}, .active = {0}});
  expect_as_autograd({.op = "aten::norm.ScalarOpt_dim", .arguments = {x, kNone, Ints{0, 1}}, .active = {0}});
  expect_as_autograd({.op = "aten::linalg_vector_norm", .arguments = {x}, .active = {0}});
  expect_as_autograd({.op = "aten::linalg_vector_norm", .arguments = {x, 2, Ints{2}}, .active = {0}});
  expect_refused({.op = "aten::linalg_vector_norm", .arguments = {x, 1, Ints{2}}, .active = {0}});
}

TEST(ReductionRules, ExtremesShareTies) {
  at::Tensor x = at::round(numbers({3, 4, 5}));
  for (const std::string op : {"aten::amax", "aten::amin"}) {
    expect_as_autograd({.op = op, .arguments = {x, Ints{1}}, .active = {0}});
    expect_as_autograd({.op = op, .arguments = {x, Ints{0, -1}, true}, .active = {0}});
    expect_as_autograd({.op = op, .arguments = {x}, .active = {0}});
  }
  expect_as_autograd({.op = "aten::max", .arguments = {x}, .active = {0}});
  expect_as_autograd({.op = "aten::min", .arguments = {x}, .active = {0}});
}

TEST(ReductionRules, LogSumExpAndCumulativeSums) {
  const at::Tensor x = 30 * numbers({3, 4, 5});
  expect_as_autograd({.op = "aten::logsumexp", .arguments = {x, Ints{1}}, .active = {0}});
  expect_as_autograd({.op = "aten::logsumexp", .arguments = {x, Ints{0, 2}, true}, .active = {0}});
  expect_as_autograd({.op = "aten::cumsum", .arguments = {x, -2}, .active = {0}});
}

}  // namespace
}  // namespace hesspect::test::reduction_rules_test
