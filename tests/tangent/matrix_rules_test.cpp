// Matrix products by rule against autograd.
#include "op_check.h"

namespace hesspect::test::matrix_rules_test {
namespace {

TEST(ProductRule, AsAutograd) {
  const at::Tensor heads = numbers({2, 5, 3, 4}).transpose(1, 2), keys = numbers({2, 6, 3, 4}).permute({0, 2, 3, 1});
  expect_as_autograd({.op = "aten::matmul", .arguments = {heads, keys}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::bmm", .arguments = {heads[0], keys[1]}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::mm", .arguments = {heads[0][0], keys[0][0]}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::matmul", .arguments = {heads, keys}, .active = {1}});
}

TEST(ProductRule, Broadcast) {
  const at::Tensor a = numbers({2, 3, 5, 4}), b = numbers({4, 6});
  expect_as_autograd({.op = "aten::matmul", .arguments = {a, b}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::matmul", .arguments = {a, numbers({3, 4, 6})}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::matmul", .arguments = {a[0], numbers({2, 1, 4, 6})}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::matmul", .arguments = {b, numbers({2, 6, 3})}, .active = {0, 1}});
}

TEST(LinearRule, AsAutograd) {
  const at::Tensor x = numbers({2, 5, 4}), w = numbers({3, 4}), b = numbers({3});
  expect_as_autograd({.op = "aten::linear", .arguments = {x, w, b}, .active = {0, 1, 2}});
  expect_as_autograd({.op = "aten::linear", .arguments = {x, w}, .active = {1}});
  expect_as_autograd({.op = "aten::addmm", .arguments = {b, x[0], w.t(), 0.5, 2}, .active = {0, 1, 2}});
  expect_as_autograd(
      {.op = "aten::baddbmm", .arguments = {numbers({2, 5, 3}), x, numbers({2, 4, 3})}, .active = {0, 1, 2}});
}

}  // namespace
}  // namespace hesspect::test::matrix_rules_test
