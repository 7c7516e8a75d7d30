// Views and products of strided arrays against LibTorch's.
#include "hesspect/tangent/strided.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../../src/tangent/rounded_products.h"

namespace hesspect::test::strided_test {
namespace {

at::Tensor numbers(at::IntArrayRef sizes, at::ScalarType type = at::kDouble) {
  static std::int64_t seed = 0;
  at::manual_seed(static_cast<std::uint64_t>(++seed));
  return at::randn(sizes, at::TensorOptions().dtype(type));
}

bool same_view(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.strides() == b.strides() && a.data_ptr() == b.data_ptr();
}

TEST(Views, AreLibTorchs) {
  const at::Tensor t = numbers({2, 3, 4, 5}).transpose(1, 3);
  EXPECT_TRUE(same_view(part(t, 1), t.select(0, 1)));
  EXPECT_TRUE(same_view(narrowed(t, 2, 1, 2), t.narrow(2, 1, 2)));
  EXPECT_TRUE(same_view(turned(t), t.transpose(-1, -2)));
  EXPECT_TRUE(same_view(permuted(t, {3, 1, 0, 2}), t.permute({3, 1, 0, 2})));
  EXPECT_TRUE(same_view(stacked_alone(part(t, 1)), t.select(0, 1).unsqueeze(0)));
  const at::Tensor number = numbers({});
  EXPECT_TRUE(same_view(stacked_alone(number), number.unsqueeze(0)));
}

TEST(Views, AreReshapedWithoutACopyWhereThatWillDo) {
  const at::Tensor t = numbers({2, 3, 4, 5}), heads = t.transpose(1, 2);
  EXPECT_TRUE(same_view(reshaped(t, {6, 20}), t.view({6, 20})));
  EXPECT_TRUE(same_view(reshaped(heads, {2, 4, 3, 5, 1}), heads.view({2, 4, 3, 5, 1})));
  const at::Tensor copy = reshaped(heads, {8, 15});
  EXPECT_TRUE(at::equal(copy, heads.reshape({8, 15})));
  EXPECT_FALSE(copy.is_alias_of(t));
}

/// The same numbers in other layouts: by rows, by columns, with gaps between rows, with gaps between entries.
std::vector<at::Tensor> layouts_of(const at::Tensor& t) {
  std::vector<std::int64_t> wide = t.sizes().vec(), sparse = t.sizes().vec();
  wide.back() += 3;
  sparse.back() *= 2;
  const at::Tensor with_gaps = at::zeros(wide, t.options()).narrow(-1, 1, t.size(-1));
  const at::Tensor apart = at::zeros(sparse, t.options()).slice(-1, 0, sparse.back(), 2);
  with_gaps.copy_(t);
  apart.copy_(t);
  return {t.clone(at::MemoryFormat::Contiguous),
          t.transpose(-1, -2).clone(at::MemoryFormat::Contiguous).transpose(-1, -2), with_gaps, apart};
}

void expect_all_layouts(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor expected = at::matmul(a, b), start = numbers(expected.sizes(), a.scalar_type());
  const double tolerance = a.scalar_type() == at::kDouble ? 1e-13 : 1e-5;
  for (const at::Tensor& left : layouts_of(a))
    for (const at::Tensor& right : layouts_of(b))
      for (const at::Tensor& out : layouts_of(start)) {
        multiply(out, left, right, /*add=*/true);
        EXPECT_LE((out - start - expected).abs().max().item<double>(), tolerance * 10);
        out.fill_(std::numeric_limits<double>::quiet_NaN());  // what it holds does not count
        multiply(out, left, right, /*add=*/false);
        EXPECT_LE((out - expected).abs().max().item<double>(), tolerance * 10);
      }
}

TEST(Multiply, MatricesOfAnyLayout) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    expect_all_layouts(numbers({5, 7}, type), numbers({7, 3}, type));
    expect_all_layouts(numbers({1, 7}, type), numbers({7, 3}, type));
    expect_all_layouts(numbers({5, 1}, type), numbers({1, 3}, type));
    expect_all_layouts(numbers({5, 7}, type), numbers({7, 1}, type));
    expect_all_layouts(numbers({1, 1}, type), numbers({1, 1}, type));
  }
}

TEST(Multiply, BatchesOfAnyLayout) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    expect_all_layouts(numbers({4, 5, 7}, type), numbers({4, 7, 3}, type));
    expect_all_layouts(numbers({2, 3, 5, 7}, type), numbers({2, 3, 7, 4}, type));
    expect_all_layouts(numbers({1, 1, 5, 7}, type), numbers({1, 1, 7, 4}, type));
  }
}

TEST(Multiply, HeadsInsideRowsAreReadAndWrittenInPlace) {
  const at::Tensor q = numbers({2, 6, 3, 4}).transpose(1, 2), k = numbers({2, 5, 3, 4}).transpose(1, 2);
  const at::Tensor memory = at::zeros({2, 6, 3, 5}, q.options()), scores = memory.transpose(1, 2);
  multiply(scores, q, turned(k), false);
  EXPECT_LE((memory.transpose(1, 2) - at::matmul(q, k.transpose(2, 3))).abs().max().item<double>(), 1e-13);
}

TEST(Multiply, WhatIsBroadcastIsReadInPlace) {
  const at::Tensor a = numbers({2, 3, 5, 7}), b = numbers({7, 4}), out = numbers({2, 3, 5, 4});
  multiply(out, a, b.expand({2, 3, 7, 4}), false);
  EXPECT_LE((out - at::matmul(a, b)).abs().max().item<double>(), 1e-13);
}

TEST(Multiply, NothingToSumIsZero) {
  const at::Tensor out = numbers({3, 2, 4}), before = out.clone();
  multiply(out, numbers({3, 2, 0}), numbers({3, 0, 4}), true);
  EXPECT_TRUE(at::equal(out, before));
  multiply(out, numbers({3, 2, 0}), numbers({3, 0, 4}), false);
  EXPECT_EQ(out.abs().max().item<double>(), 0);
  multiply(numbers({0, 4}), numbers({0, 2}), numbers({2, 4}), false);  // and no entries are no error
}

TEST(Multiply, WhatDoesNotFitIsRefused) {
  EXPECT_THROW(multiply(numbers({2, 3}), numbers({2, 4}), numbers({5, 3}), false), std::logic_error);
  EXPECT_THROW(multiply(numbers({2, 3}), numbers({2, 4}), numbers({4, 2}), false), std::logic_error);
  EXPECT_THROW(multiply(numbers({2, 2, 3}), numbers({3, 2, 4}), numbers({2, 4, 3}), false), std::logic_error);
  EXPECT_THROW(multiply(numbers({2, 3}), numbers({2, 4}), numbers({4, 3}, at::kFloat), false), std::logic_error);
}

TEST(Multiply, RoundsWhereItIsTold) {
  const at::NoGradGuard no_grad;
  const at::Tensor a = numbers({64, 32}, at::kFloat), b = numbers({32, 48}, at::kFloat);
  const at::Tensor exact = at::zeros({64, 48}), rounded = at::zeros({64, 48});
  multiply(exact, a, b, false);
  {
    const RoundedProducts scope(Rounding::kByCopies);
    multiply(rounded, a, b, false);
  }
  const auto low = [](const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kFloat); };
  EXPECT_LE((rounded - at::mm(low(a), low(b))).abs().max().item<double>(), 1e-4);
  EXPECT_GE((rounded - exact).norm().item<double>(), 1e-4 * exact.norm().item<double>());
}

}  // namespace
}  // namespace hesspect::test::strided_test
