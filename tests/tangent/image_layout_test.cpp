// Images with their channels last in memory: what is made of them, and that rules take them beside others.
#include "../../src/tangent/image_layout.h"

#include "op_check.h"

namespace hesspect::test::image_layout_test {
namespace {

at::Tensor last(const at::Tensor& images) { return images.contiguous(at::MemoryFormat::ChannelsLast); }

TEST(ImageLayout, FlatIsMemoryInOrder) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor plain = numbers({3, 5, 20, 19}).to(type), images = last(plain);
    EXPECT_FALSE(ImageLayout(plain).is_channels_last());
    const ImageLayout layout(images);
    ASSERT_TRUE(layout.is_channels_last());
    EXPECT_TRUE(layout.is_view(images));
    EXPECT_FALSE(layout.is_view(plain));
    EXPECT_TRUE(layout.flat(images).is_alias_of(images));
    const at::Tensor expected = plain.permute({0, 2, 3, 1}).contiguous();
    for (const at::Tensor& t : {images, plain}) {
      EXPECT_TRUE(layout.flat(t).is_contiguous());
      EXPECT_TRUE(layout.flat(t).equal(expected));
      EXPECT_TRUE(layout.shaped(layout.flat(t)).equal(plain));
    }
    // Stacks of them, each in its own layout.
    const at::Tensor stack = at::stack({plain, plain + 1});
    const at::Tensor stack_last = stack.permute({0, 1, 3, 4, 2}).contiguous().permute({0, 1, 4, 2, 3});
    EXPECT_TRUE(layout.is_view(stack_last));
    for (const at::Tensor& t : {stack, stack_last, stack.transpose(0, 1).contiguous().transpose(0, 1)}) {
      EXPECT_TRUE(layout.flat(t).is_contiguous());
      EXPECT_TRUE(layout.flat(t).equal(stack.permute({0, 1, 3, 4, 2})));
      EXPECT_TRUE(layout.shaped(layout.flat(t)).equal(stack));
      EXPECT_TRUE(channels_first(t).is_contiguous());
      EXPECT_TRUE(channels_first(t).equal(stack));
    }
    EXPECT_TRUE(channels_first(images).is_contiguous());
    EXPECT_TRUE(channels_first(images).equal(plain));
  }
}

TEST(ImageLayout, RulesTakeImagesOfEither) {
  const at::Tensor x = last(numbers({3, 4, 5, 6})), c = numbers({4}), mean = numbers({4}),
                   variance = numbers({4}).abs() + 0.5;
  expect_as_autograd({.op = "aten::batch_norm",
                      .arguments = {x, c, c + 1, mean, variance, false, 0.1, 1e-5, false},
                      .active = {0, 1, 2}});
  expect_as_autograd({.op = "aten::group_norm", .arguments = {x, 2, c, c + 1, 1e-5, false}, .active = {0, 2, 3}});
  expect_as_autograd({.op = "aten::gelu", .arguments = {x, "none"}, .active = {0}});
  expect_as_autograd({.op = "aten::relu", .arguments = {x}, .active = {0}});
  expect_as_autograd({.op = "aten::add.Tensor", .arguments = {x, numbers({3, 4, 5, 6}), 1}, .active = {0, 1}});
}

}  // namespace
}  // namespace hesspect::test::image_layout_test
