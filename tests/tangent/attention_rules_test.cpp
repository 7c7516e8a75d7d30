// Scaled dot product attention by rule against autograd, in blocks of every kind.
#include <ATen/Context.h>

#include "op_check.h"

namespace hesspect::test::attention_rules_test {
namespace {

using c10::IValue;

/// The form of attention that has a second derivative, as programs run it.
class AttentionRule : public ::testing::Test {
 protected:
  void SetUp() override {
    at::globalContext().setSDPUseFlash(false);
    at::globalContext().setSDPUseMemEfficient(false);
    at::globalContext().setSDPUseMath(true);
  }
};

OpCase attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const IValue& mask = {},
                 bool is_causal = false, const IValue& scale = {}, bool is_grouped = false) {
  return {.op = "aten::scaled_dot_product_attention",
          .arguments = {q, k, v, mask, 0.0, is_causal, scale, is_grouped},
          .active = {0, 1, 2}};
}

/// As a projection makes it: [batch, rows, heads, d] with the heads' dimension moved forward.
at::Tensor projected(std::int64_t batch, std::int64_t heads, std::int64_t rows, std::int64_t d) {
  return numbers({batch, rows, heads, d}).transpose(1, 2);
}

TEST_F(AttentionRule, AsAutograd) {
  const at::Tensor q = projected(3, 2, 7, 4), k = projected(3, 2, 9, 4), v = projected(3, 2, 9, 5);
  expect_as_autograd(attention(q, k, v));
  expect_as_autograd(attention(q, k, v, {}, /*is_causal=*/true));
  expect_as_autograd(attention(k, q, numbers({3, 2, 7, 5}), {}, /*is_causal=*/true));
  expect_as_autograd(attention(q, k, v, {}, false, 0.3));
  expect_as_autograd(attention(q[0], k[0], v[0], {}, true));
  expect_as_autograd(attention(q[0][0], k[0][0], v[0][0]));
}

TEST_F(AttentionRule, ActiveInPart) {
  const at::Tensor q = projected(3, 2, 7, 4), k = projected(3, 2, 9, 4), v = projected(3, 2, 9, 5);
  for (const std::vector<std::size_t>& active : {std::vector<std::size_t>{0}, {1}, {2}, {0, 1}, {1, 2}}) {
    OpCase c = attention(q, k, v);
    c.active = active;
    expect_as_autograd(c);
  }
}

TEST_F(AttentionRule, Masks) {
  const at::Tensor q = projected(3, 2, 5, 4), k = projected(3, 2, 6, 4), v = projected(3, 2, 6, 4);
  expect_as_autograd(attention(q, k, v, numbers({3, 2, 5, 6})));
  expect_as_autograd(attention(q, k, v, numbers({5, 6})));
  expect_as_autograd(attention(q, k, v, numbers({3, 1, 1, 6})));
  expect_as_autograd(attention(q, k, v, numbers({5, 1})));
  expect_as_autograd(attention(q, k, v, numbers({3, 2, 5, 6}) > 0));
  const at::Tensor mask = numbers({1, 2, 5, 6}) > -1;
  mask[0][1][3].fill_(false);  // a row that sees nothing
  expect_as_autograd(attention(q, k, v, mask));
  expect_as_autograd(
      attention(q, k, v, at::zeros({5, 6}, at::kDouble).index_fill_(0, at::tensor({2}, at::kLong), -INFINITY)));
}

TEST_F(AttentionRule, HeadsThatShareKeys) {
  for (const std::int64_t groups : {1, 2, 3}) {
    const at::Tensor q = projected(2, 6, 5, 4), k = projected(2, groups, 7, 4), v = projected(2, groups, 7, 3);
    expect_as_autograd(attention(q, k, v, {}, true, {}, true));
    expect_as_autograd(attention(q, k, v, numbers({2, 6, 5, 7}) > 0, false, {}, true));
  }
}

void expect_large_as_autograd(OpCase c) {
  c.is_large = true;
  expect_as_autograd(c);
}

TEST_F(AttentionRule, InBlocksOfRowsAndOfBatches) {
  // Whole batches, several to a block, of which the last is smaller.
  expect_large_as_autograd(
      attention(projected(7, 2, 100, 2), projected(7, 2, 110, 2), projected(7, 2, 110, 2), {}, true));
  // Rows of one batch, and heads.
  expect_large_as_autograd(
      attention(projected(1, 2, 300, 2), projected(1, 2, 500, 2), projected(1, 2, 500, 2), {}, true));
  expect_large_as_autograd(attention(projected(1, 3, 150, 2), projected(1, 1, 700, 2), projected(1, 1, 700, 2),
                                     numbers({150, 700}), false, {}, true));
  // 17 heads in blocks of 8.
  expect_large_as_autograd(
      attention(projected(2, 17, 70, 2), projected(2, 17, 120, 2), projected(2, 17, 120, 2), numbers({2, 1, 70, 120})));
}

TEST_F(AttentionRule, ProbabilitiesThatAreTooLargeToKeepAreMadeAgain) {
  expect_large_as_autograd(
      attention(projected(1, 1, 2900, 2), projected(1, 1, 2950, 2), projected(1, 1, 2950, 2), {}, true));
}

TEST_F(AttentionRule, WhatIsLeftToAutograd) {
  const at::Tensor q = numbers({3, 2, 5, 4});
  OpCase dropout = attention(q, q, q);
  dropout.arguments[4] = 0.5;
  expect_refused(dropout);
  OpCase of_mask = attention(q, q, q, numbers({5, 5}));
  of_mask.active = {0, 3};
  expect_refused(of_mask);
  expect_refused(attention(q, numbers({1, 2, 5, 4}), numbers({1, 2, 5, 4})));
}

}  // namespace
}  // namespace hesspect::test::attention_rules_test
