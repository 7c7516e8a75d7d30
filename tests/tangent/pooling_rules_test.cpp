// Rules of pooling, resampling and windows.
#include "op_check.h"

namespace hesspect::test::pooling_rules_test {
namespace {

using Ints = std::vector<std::int64_t>;
const c10::IValue kNone;

at::Tensor images(std::size_t dims) {
  const Ints shape{2, 3, 7, 6, 5};
  return numbers(at::IntArrayRef(shape).slice(0, dims + 2));
}

TEST(PoolingRules, Averages) {
  for (std::size_t dims = 1; dims <= 3; ++dims) {
    const std::string op = "aten::avg_pool" + std::to_string(dims) + "d";
    const at::Tensor x = images(dims);
    expect_as_autograd({.op = op, .arguments = {x, Ints(dims, 2)}, .active = {0}});
    expect_as_autograd({.op = op, .arguments = {x, Ints{3}, Ints{2}, Ints{1}, true, false}, .active = {0}});
    const std::string adaptive = "aten::adaptive_avg_pool" + std::to_string(dims) + "d";
    expect_as_autograd({.op = adaptive, .arguments = {x, Ints(dims, 1)}, .active = {0}});
    expect_as_autograd({.op = adaptive, .arguments = {x, Ints(dims, 4)}, .active = {0}});
    expect_refused({.op = op, .arguments = {x[0], Ints(dims, 2)}, .active = {0}});
  }
  expect_as_autograd({.op = "aten::avg_pool2d",
                      .arguments = {images(2), Ints{3, 2}, Ints{1, 2}, Ints{1, 0}, false, true, 5},
                      .active = {0}});
}

TEST(PoolingRules, Largest) {
  for (std::size_t dims = 1; dims <= 3; ++dims)
    for (const std::string ending : {"d", "d_with_indices"}) {
      const std::string op = "aten::max_pool" + std::to_string(dims) + ending;
      expect_as_autograd({.op = op, .arguments = {images(dims), Ints(dims, 2)}, .active = {0}});
      expect_as_autograd(
          {.op = op, .arguments = {images(dims), Ints{3}, Ints{1}, Ints{1}, Ints{2}, false}, .active = {0}});
      expect_as_autograd(
          {.op = op, .arguments = {images(dims), Ints{2}, Ints{2}, Ints{0}, Ints{1}, true}, .active = {0}});
    }
  expect_as_autograd({.op = "aten::max_pool2d",
                      .arguments = {images(2).contiguous(at::MemoryFormat::ChannelsLast), Ints{2, 2}},
                      .active = {0}});
}

TEST(PoolingRules, Resampling) {
  const at::Tensor row = images(1), image = images(2), volume = images(3);
  for (const std::string exact : {"aten::upsample_nearest", "aten::_upsample_nearest_exact"}) {
    expect_as_autograd({.op = exact + "1d", .arguments = {row, Ints{11}, 1.6}, .active = {0}});
    expect_as_autograd({.op = exact + "2d", .arguments = {image, Ints{14, 3}, 2.0, 0.5}, .active = {0}});
    expect_as_autograd(
        {.op = exact + "2d.vec", .arguments = {image, kNone, std::vector<double>{1.5, 2.3}}, .active = {0}});
    expect_as_autograd({.op = exact + "2d.vec", .arguments = {image, Ints{9, 9}, kNone}, .active = {0}});
    expect_as_autograd({.op = exact + "3d", .arguments = {volume, Ints{9, 3, 7}}, .active = {0}});
  }
  for (const bool corners : {false, true}) {
    expect_as_autograd({.op = "aten::upsample_linear1d", .arguments = {row, Ints{11}, corners}, .active = {0}});
    expect_as_autograd(
        {.op = "aten::upsample_bilinear2d", .arguments = {image, Ints{11, 9}, corners, 1.6, 1.5}, .active = {0}});
    expect_as_autograd({.op = "aten::upsample_bilinear2d.vec",
                        .arguments = {image, kNone, corners, std::vector<double>{1.5, 2.3}},
                        .active = {0}});
    expect_as_autograd({.op = "aten::upsample_bicubic2d", .arguments = {image, Ints{11, 9}, corners}, .active = {0}});
    expect_as_autograd(
        {.op = "aten::upsample_trilinear3d", .arguments = {volume, Ints{5, 9, 8}, corners}, .active = {0}});
  }
}

TEST(PoolingRules, Windows) {
  const at::Tensor x = images(2);
  expect_as_autograd(
      {.op = "aten::im2col", .arguments = {x, Ints{3, 2}, Ints{1, 2}, Ints{1, 0}, Ints{2, 1}}, .active = {0}});
  expect_as_autograd({.op = "aten::unfold", .arguments = {x, 2, 3, 2}, .active = {0}});
  expect_as_autograd({.op = "aten::unfold", .arguments = {x, -1, 2, 1}, .active = {0}});
  expect_as_autograd({.op = "aten::pixel_shuffle", .arguments = {numbers({2, 8, 3, 2}), 2}, .active = {0}});
  expect_as_autograd({.op = "aten::pixel_unshuffle", .arguments = {numbers({2, 2, 6, 9}), 3}, .active = {0}});
}

TEST(PoolingRules, PaddingByAConstant) {
  const at::Tensor x = images(2);
  expect_as_autograd({.op = "aten::constant_pad_nd", .arguments = {x, Ints{1, 2, 0, -1}, 0.5}, .active = {0}});
  expect_as_autograd({.op = "aten::pad", .arguments = {x, Ints{1, 2}}, .active = {0}});
  expect_refused({.op = "aten::pad", .arguments = {x, Ints{1, 2, 1, 1}, "reflect"}, .active = {0}});
}

}  // namespace
}  // namespace hesspect::test::pooling_rules_test
