// Rules of convolutions: of each dimension, with strides, padding, dilation, groups, and transposed.
#include "op_check.h"

namespace hesspect::test::convolution_rules_test {
namespace {

using Ints = std::vector<std::int64_t>;
const c10::IValue kNone;

TEST(ConvolutionRules, EachDimension) {
  const at::Tensor bias = numbers({6});
  expect_as_autograd(
      {.op = "aten::conv1d", .arguments = {numbers({2, 4, 9}), numbers({6, 4, 3}), bias}, .active = {0, 1, 2}});
  expect_as_autograd(
      {.op = "aten::conv2d", .arguments = {numbers({2, 4, 5, 6}), numbers({6, 4, 3, 2}), bias}, .active = {0, 1, 2}});
  expect_as_autograd({.op = "aten::conv3d",
                      .arguments = {numbers({2, 2, 3, 4, 3}), numbers({6, 2, 2, 3, 2}), bias},
                      .active = {0, 1, 2}});
}

TEST(ConvolutionRules, Geometry) {
  const at::Tensor x = numbers({3, 4, 8, 7}), w = numbers({6, 4, 3, 3}), grouped = numbers({6, 2, 3, 3});
  expect_as_autograd({.op = "aten::conv2d", .arguments = {x, w, kNone, Ints{2, 1}, Ints{1, 2}}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::conv2d", .arguments = {x, w, kNone, Ints{1}, Ints{2}, Ints{2}}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::conv2d",
                      .arguments = {x, grouped, numbers({6}), Ints{2, 2}, Ints{1, 1}, Ints{1, 1}, 2},
                      .active = {0, 1, 2}});
  expect_as_autograd({.op = "aten::conv2d",
                      .arguments = {x, numbers({4, 1, 3, 3}), kNone, Ints{1, 1}, Ints{1, 1}, Ints{1, 1}, 4},
                      .active = {0, 1}});
  expect_as_autograd(
      {.op = "aten::conv2d", .arguments = {x, numbers({6, 4, 1, 1}), kNone, Ints{2, 2}}, .active = {0, 1}});
  expect_as_autograd({.op = "aten::conv2d.padding",
                      .arguments = {x, w, numbers({6}), Ints{1, 1}, "same", Ints{2, 1}},
                      .active = {0, 1, 2}});
  expect_as_autograd({.op = "aten::conv2d.padding", .arguments = {x, w, kNone, Ints{2, 2}, "valid"}, .active = {0, 1}});
  expect_refused({.op = "aten::conv2d.padding",
                  .arguments = {x, numbers({6, 4, 2, 3}), kNone, Ints{1, 1}, "same"},
                  .active = {0, 1}});
  expect_refused({.op = "aten::conv2d", .arguments = {x[0], w}, .active = {0, 1}});
}

TEST(ConvolutionRules, PartsOfTheArguments) {
  const at::Tensor x = numbers({3, 4, 8, 7}), w = numbers({6, 4, 3, 3}), bias = numbers({6});
  for (const std::vector<std::size_t>& active : std::vector<std::vector<std::size_t>>{{0}, {1}, {2}, {0, 2}, {1, 2}})
    expect_as_autograd({.op = "aten::conv2d", .arguments = {x, w, bias}, .active = active});
  expect_as_autograd({.op = "aten::conv2d",
                      .arguments = {x.contiguous(at::MemoryFormat::ChannelsLast), w.transpose(2, 3), bias},
                      .active = {0, 1, 2}});
}

TEST(ConvolutionRules, Transposed) {
  const at::Tensor x = numbers({3, 4, 5, 6});
  expect_as_autograd({.op = "aten::conv_transpose1d",
                      .arguments = {numbers({2, 4, 5}), numbers({4, 3, 3}), numbers({3}), Ints{2}, Ints{1}, Ints{1}},
                      .active = {0, 1, 2}});
  expect_as_autograd(
      {.op = "aten::conv_transpose2d.input",
       .arguments = {x, numbers({4, 3, 3, 2}), numbers({6}), Ints{2, 3}, Ints{1, 0}, Ints{1, 2}, 2, Ints{2, 1}},
       .active = {0, 1, 2}});
  expect_as_autograd(
      {.op = "aten::convolution",
       .arguments = {x, numbers({4, 3, 3, 2}), kNone, Ints{2, 3}, Ints{1, 0}, Ints{1, 1}, true, Ints{1, 2}, 1},
       .active = {0, 1}});
  expect_as_autograd(
      {.op = "aten::convolution",
       .arguments = {x, numbers({3, 4, 3, 2}), kNone, Ints{2, 3}, Ints{1, 0}, Ints{1, 1}, false, Ints{0, 0}, 1},
       .active = {0, 1}});
}

}  // namespace
}  // namespace hesspect::test::convolution_rules_test
