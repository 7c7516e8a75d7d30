// Forms that ops run in, against the ops themselves or their definition, in value and in two derivatives.
#include "../../src/model/rewrites.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

namespace hesspect::rewrites_test {
namespace {

using Function = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

at::Tensor random(at::IntArrayRef shape, at::ScalarType type = at::kDouble) {
  return at::randn(shape, type).requires_grad_(true);
}

/// f, its gradient, and the gradient of that gradient's norm, as one list.
std::vector<at::Tensor> two_derivatives(const Function& f, const std::vector<at::Tensor>& x) {
  const at::Tensor y = f(x);
  const at::Tensor loss = (y.is_complex() ? at::view_as_real(y) : y).sin().sum();
  std::vector<at::Tensor> gradients = torch::autograd::grad({loss}, x, {}, true, true);
  at::Tensor norm = at::zeros({}, at::kDouble);
  for (const at::Tensor& g : gradients) norm = norm + at::real(g * g.conj()).sum();
  std::vector<at::Tensor> all = torch::autograd::grad({norm}, x);
  all.insert(all.end(), gradients.begin(), gradients.end());
  all.push_back(y);
  return all;
}

void expect_same(const Function& form, const Function& definition, const std::vector<at::Tensor>& x) {
  const std::vector<at::Tensor> got = two_derivatives(form, x), expected = two_derivatives(definition, x);
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(at::allclose(got[i], expected[i], 1e-12, 1e-12)) << i;
}

Function grouped(const at::Tensor& ends) {
  return [ends](const std::vector<at::Tensor>& x) {
    return rewrite_for("_grouped_mm", "")->run({x[0], x[1], ends, c10::IValue(), c10::IValue()});
  };
}

// Groups of 2, 0 and 3, an empty one among them.
const std::vector<std::pair<std::int64_t, std::int64_t>> kGroups = {{0, 2}, {2, 2}, {2, 5}};

TEST(GroupedMm, GroupsOfRows) {
  // Seven rows, the last two in no group: they are zero.
  const auto definition = [](const std::vector<at::Tensor>& x) {
    std::vector<at::Tensor> parts;
    for (std::size_t g = 0; g < kGroups.size(); ++g)
      parts.push_back(x[0].slice(0, kGroups[g].first, kGroups[g].second).mm(x[1][static_cast<std::int64_t>(g)]));
    parts.push_back(at::zeros({2, 4}, at::kDouble));
    return at::cat(parts);
  };
  const at::Tensor ends = at::tensor({2, 2, 5}, at::kInt);
  expect_same(grouped(ends), definition, {random({7, 3}), random({3, 3, 4})});
}

TEST(GroupedMm, GroupsOfColumns) {
  const auto definition = [](const std::vector<at::Tensor>& x) {
    std::vector<at::Tensor> parts;
    for (std::size_t g = 0; g < kGroups.size(); ++g)
      parts.push_back(x[0][static_cast<std::int64_t>(g)].mm(x[1].slice(1, kGroups[g].first, kGroups[g].second)));
    return at::cat(parts, 1);
  };
  const at::Tensor ends = at::tensor({2, 2, 5}, at::kLong);
  expect_same(grouped(ends), definition, {random({3, 4, 6}), random({6, 5})});
}

TEST(GroupedMm, GroupsOfTheSummedDimension) {
  const auto definition = [](const std::vector<at::Tensor>& x) {
    std::vector<at::Tensor> parts;
    for (const auto& [begin, end] : kGroups) parts.push_back(x[0].slice(1, begin, end).mm(x[1].slice(0, begin, end)));
    return at::stack(parts);
  };
  expect_same(grouped(at::tensor({2, 2, 5}, at::kInt)), definition, {random({4, 5}), random({5, 3})});
}

TEST(GroupedMm, BatchesOfMatrices) {
  const auto definition = [](const std::vector<at::Tensor>& x) { return at::matmul(x[0], x[1]); };
  const auto form = [](const std::vector<at::Tensor>& x) {
    return rewrite_for("_grouped_mm", "")->run({x[0], x[1], c10::IValue(), c10::IValue(), c10::IValue()});
  };
  expect_same(form, definition, {random({3, 4, 6}), random({3, 6, 5})});
}

TEST(Scatter, IntoSlicesOfComplexNumbers) {
  const auto form = [](const std::vector<at::Tensor>& x) {
    const at::Tensor y = rewrite_for("slice_scatter", "")->run({x[0], x[1], 1, c10::IValue(), 5, 2});
    return rewrite_for("select_scatter", "")->run({y, x[1].select(1, 0), 1, -1});
  };
  const auto definition = [](const std::vector<at::Tensor>& x) {
    const std::vector<at::Tensor> b = x[1].unbind(1);
    return at::stack({b[0], x[0].select(1, 1), b[1], x[0].select(1, 3), b[2], b[0]}, 1);
  };
  expect_same(form, definition, {random({2, 6}, at::kComplexDouble), random({2, 3}, at::kComplexDouble)});
}

TEST(Cdist, NormsOfDifferences) {
  for (const double p : {1.0, 2.0, 3.0}) {
    const auto form = [p](const std::vector<at::Tensor>& x) {
      return rewrite_for("cdist", "")->run({x[0], x[1], p, c10::IValue()});
    };
    const std::vector<at::Tensor> x = {random({2, 5, 3}), random({2, 4, 3})};
    EXPECT_TRUE(at::allclose(form(x), at::cdist(x[0], x[1], p)));
    const auto definition = [p](const std::vector<at::Tensor>& y) {
      return (y[0].unsqueeze(2) - y[1].unsqueeze(1)).abs().pow(p).sum(-1).pow(1 / p);
    };
    expect_same(form, definition, x);
  }
}

TEST(Copy, BroadcastsAndConverts) {
  const at::Tensor old = random({4, 3}, at::kFloat);
  const auto form = [&](const std::vector<at::Tensor>& x) {
    return rewrite_for("copy", "")->run({old, x[0].to(at::kDouble), false});
  };
  const auto definition = [](const std::vector<at::Tensor>& x) { return x[0].expand({4, 3}).to(at::kFloat); };
  expect_same(form, definition, {random({3})});
}

}  // namespace
}  // namespace hesspect::rewrites_test
