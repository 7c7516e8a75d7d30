// Rules of ops that pick entries or rows by a constant index.
#include "op_check.h"

namespace hesspect::test::index_rules_test {
namespace {

using Ints = std::vector<std::int64_t>;

at::Tensor ints(const Ints& values, const Ints& shape) { return at::tensor(values, at::kLong).view(shape); }

c10::IValue indices(const std::vector<at::Tensor>& by_dim) {
  c10::List<std::optional<at::Tensor>> list;
  for (const at::Tensor& index : by_dim)
    list.push_back(index.defined() ? std::optional<at::Tensor>(index) : std::nullopt);
  return list;
}

TEST(RowRules, Embedding) {
  const at::Tensor weight = numbers({6, 5}), tokens = ints({5, 0, 2, 2, 5, 1}, {2, 3});
  expect_as_autograd({.op = "aten::embedding", .arguments = {weight, tokens}, .active = {0}});
  expect_as_autograd({.op = "aten::embedding", .arguments = {weight, tokens, 2}, .active = {0}});
  expect_as_autograd({.op = "aten::embedding", .arguments = {weight, tokens.to(at::kInt), 5}, .active = {0}});
  expect_refused({.op = "aten::embedding", .arguments = {weight, tokens, -1, true}, .active = {0}});
}

TEST(RowRules, IndexSelect) {
  const at::Tensor x = numbers({4, 5, 3});
  for (const std::int64_t dim : {0, 1, -1})
    expect_as_autograd({.op = "aten::index_select", .arguments = {x, dim, ints({2, 0, 2}, {3})}, .active = {0}});
  expect_as_autograd(
      {.op = "aten::index_select", .arguments = {x.transpose(0, 1), 0, ints({4, 4}, {2})}, .active = {0}});
}

TEST(RowRules, IndexByIntegersOrMasks) {
  const at::Tensor x = numbers({4, 5, 3}), i = ints({3, -4, 1, 3}, {2, 2}), j = ints({-1, 2}, {2});
  const at::Tensor mask = at::arange(4) > 1, none;
  for (const auto& by_dim : std::vector<std::vector<at::Tensor>>{{i},
                                                                 {none, i},
                                                                 {i, j},
                                                                 {none, i, j},
                                                                 {none, none, j},
                                                                 {i, j, j},
                                                                 {mask},
                                                                 {mask, none},
                                                                 {at::arange(20).view({4, 5}) % 3 == 0},
                                                                 {ints({2}, {})}})
    expect_as_autograd({.op = "aten::index.Tensor", .arguments = {x, indices(by_dim)}, .active = {0}});
  expect_refused({.op = "aten::index.Tensor", .arguments = {x, indices({j, none, j})}, .active = {0}});
}

TEST(IndexRules, Gather) {
  const at::Tensor x = numbers({4, 5, 3}), index = ints({3, 0, 0, 1, 2, 2, 1, 1}, {2, 4, 1});
  expect_as_autograd({.op = "aten::gather", .arguments = {x, 0, index}, .active = {0}});
  expect_as_autograd({.op = "aten::gather", .arguments = {x, -2, index}, .active = {0}});
  const at::Tensor along = ints({1, 0, 2, 1}, {1, 4, 1});
  expect_as_autograd({.op = "aten::take_along_dim", .arguments = {x, along, 1}, .active = {0}});
  expect_refused({.op = "aten::take_along_dim", .arguments = {x, along}, .active = {0}});
  expect_refused({.op = "aten::take_along_dim", .arguments = {x.narrow(0, 0, 1), index, 1}, .active = {0}});
}

TEST(IndexRules, ValuesBySize) {
  const at::Tensor x = numbers({4, 5, 3});
  for (const std::string op : {"aten::max.dim", "aten::min.dim", "aten::median.dim"})
    for (const bool keeps : {false, true}) expect_as_autograd({.op = op, .arguments = {x, -2, keeps}, .active = {0}});
  expect_as_autograd({.op = "aten::kthvalue", .arguments = {x, 2, 1}, .active = {0}});
  expect_as_autograd({.op = "aten::topk", .arguments = {x, 2, 0}, .active = {0}});
  expect_as_autograd({.op = "aten::sort", .arguments = {x, 1, true}, .active = {0}});
  expect_as_autograd({.op = "aten::sort.stable", .arguments = {x, true, 0}, .active = {0}});
}

TEST(IndexRules, Scatter) {
  const at::Tensor x = numbers({4, 5, 3}), index = ints({3, 0, 2, 1, 1, 2}, {2, 3, 1}), src = numbers({2, 3, 1});
  expect_as_autograd({.op = "aten::scatter.src", .arguments = {x, 0, index, src}, .active = {0, 3}});
  expect_as_autograd({.op = "aten::scatter.src", .arguments = {x, 0, index, src}, .active = {3}});
  expect_as_autograd({.op = "aten::scatter.value", .arguments = {x, 1, index, 2.5}, .active = {0}});
  const at::Tensor twice = ints({1, 1, 1, 0, 0, 2}, {2, 3, 1});
  expect_as_autograd({.op = "aten::scatter_add", .arguments = {x, 1, twice, src}, .active = {0, 3}});
  expect_as_autograd({.op = "aten::scatter_add", .arguments = {x, -3, twice, src}, .active = {3}});
  expect_as_autograd(
      {.op = "aten::index_add", .arguments = {x, 1, ints({4, 1, 4}, {3}), numbers({4, 3, 3}), 0.5}, .active = {0, 3}});
  expect_as_autograd({.op = "aten::index_add", .arguments = {x, 0, ints({2}, {1}), numbers({1, 5, 3})}, .active = {3}});
}

TEST(IndexRules, Where) {
  const at::Tensor a = numbers({4, 3}), b = numbers({2, 1, 3}), condition = at::arange(8).view({2, 4, 1}) % 3 == 0;
  expect_as_autograd({.op = "aten::where.self", .arguments = {condition, a, b}, .active = {1, 2}});
  expect_as_autograd({.op = "aten::where.self", .arguments = {condition, a, b}, .active = {2}});
  expect_as_autograd({.op = "aten::where.ScalarOther", .arguments = {condition, a, 1.5}, .active = {1}});
  expect_as_autograd({.op = "aten::where.ScalarSelf", .arguments = {condition, 1.5, b}, .active = {2}});
  expect_as_autograd({.op = "aten::masked_fill.Scalar", .arguments = {a, condition, -1e9}, .active = {0}});
  expect_as_autograd({.op = "aten::masked_fill.Tensor", .arguments = {a, condition, numbers({})}, .active = {0, 2}});
}

TEST(IndexRules, Repetitions) {
  const at::Tensor x = numbers({2, 3});
  expect_as_autograd({.op = "aten::repeat", .arguments = {x, Ints{2, 1, 3}}, .active = {0}});
  expect_as_autograd({.op = "aten::repeat", .arguments = {numbers({}), Ints{2}}, .active = {0}});
  expect_as_autograd({.op = "aten::tile", .arguments = {x, Ints{2}}, .active = {0}});
  expect_as_autograd({.op = "aten::repeat_interleave.self_int", .arguments = {x, 3, 1}, .active = {0}});
  expect_as_autograd({.op = "aten::repeat_interleave.self_int", .arguments = {x, 2}, .active = {0}});
}

}  // namespace
}  // namespace hesspect::test::index_rules_test
