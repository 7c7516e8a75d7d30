// Softmax, log-softmax and the norms by rule against autograd.
#include "op_check.h"

namespace hesspect::test::norm_rules_test {
namespace {

using c10::IValue;

TEST(SoftmaxRule, AsAutogradInAnyDimension) {
  const at::Tensor x = numbers({3, 4, 17}), turned = numbers({17, 4, 3}).permute({2, 1, 0});
  for (const char* op : {"aten::softmax.int", "aten::log_softmax.int", "aten::special_softmax"}) {
    for (const int dim : {2, -1, 0, 1}) expect_as_autograd({.op = op, .arguments = {x, dim}, .active = {0}});
    expect_as_autograd({.op = op, .arguments = {turned, 2}, .active = {0}});
  }
  expect_as_autograd({.op = "aten::_softmax", .arguments = {x, -1, false}, .active = {0}});
  expect_as_autograd({.op = "aten::_log_softmax", .arguments = {x, 1, false}, .active = {0}});
}

TEST(SoftmaxRule, SafeSoftmaxOfMaskedRowsIsZero) {
  const at::Tensor x = numbers({3, 5});
  x[1].fill_(-INFINITY);
  x[2][0] = -INFINITY;
  expect_as_autograd({.op = "aten::_safe_softmax", .arguments = {x, -1}, .active = {0}});
}

TEST(SoftmaxRule, AnotherTypeIsLeftToAutograd) {
  const at::Tensor x = numbers({3, 5});
  expect_refused({.op = "aten::softmax.int", .arguments = {x, -1, at::kFloat}, .active = {0}});
  expect_as_autograd({.op = "aten::log_softmax.int", .arguments = {numbers({7}), 0}, .active = {0}});
}

TEST(RowNormRule, AsAutograd) {
  const at::Tensor x = numbers({2, 67, 12}), w = numbers({12}), b = numbers({12});
  const IValue none;
  const at::List<std::int64_t> shape({12});
  for (const char* op : {"aten::layer_norm", "aten::native_layer_norm"}) {
    expect_as_autograd({.op = op, .arguments = {x, shape, w, b, 1e-5}, .active = {0, 2, 3}});
    expect_as_autograd({.op = op, .arguments = {x, shape, none, none, 1e-5}, .active = {0}});
    expect_as_autograd({.op = op, .arguments = {x, shape, w, b, 1e-3}, .active = {2, 3}});
    expect_as_autograd({.op = op, .arguments = {x, shape, w, b, 1e-3}, .active = {0}});
  }
  for (const char* op : {"aten::rms_norm", "aten::_fused_rms_norm"}) {
    expect_as_autograd({.op = op, .arguments = {x, shape, w, 1e-5}, .active = {0, 2}});
    expect_as_autograd({.op = op, .arguments = {x, shape, none, none}, .active = {0}});
    expect_as_autograd({.op = op, .arguments = {x, shape, w, none}, .active = {2}});
  }
}

TEST(RowNormRule, SeveralDimensionsAndOtherLayouts) {
  const at::Tensor x = numbers({5, 4, 3}), w = numbers({4, 3}), b = numbers({3, 4}).t();
  const at::List<std::int64_t> shape({4, 3});
  expect_as_autograd({.op = "aten::layer_norm", .arguments = {x, shape, w, b, 1e-5}, .active = {0, 2, 3}});
  const at::Tensor turned = numbers({3, 4, 5}).permute({2, 1, 0});
  expect_as_autograd({.op = "aten::layer_norm", .arguments = {turned, shape, w, b, 1e-5}, .active = {0, 2, 3}});
  expect_as_autograd({.op = "aten::rms_norm", .arguments = {turned, shape, w, 1e-5}, .active = {0, 2}});
}

TEST(RowNormRule, MeansThatAreReadAreLeftToAutograd) {
  const OpCase c{.op = "aten::native_layer_norm",
                 .arguments = {numbers({3, 4}), at::List<std::int64_t>({4}), IValue(), IValue(), 1e-5},
                 .active = {0}};
  OpNode node(c, at::kDouble);
  const MakeRun make = rule_for(node.instruction).make;
  for (const int slot : {-1, 5}) {
    node.instruction.outputs = {4, slot, -1};
    Arguments arguments = node.given();
    EXPECT_EQ(make(arguments) != nullptr, slot < 0);
  }
}

TEST(GroupNormRule, AsAutograd) {
  const at::Tensor x = numbers({3, 6, 5, 2}), w = numbers({6}), b = numbers({6});
  const IValue none;
  for (const int groups : {1, 2, 6}) {
    expect_as_autograd({.op = "aten::group_norm", .arguments = {x, groups, w, b, 1e-5}, .active = {0, 2, 3}});
    expect_as_autograd(
        {.op = "aten::native_group_norm", .arguments = {x, w, b, 3, 6, 10, groups, 1e-5}, .active = {0, 1, 2}});
  }
  expect_as_autograd({.op = "aten::group_norm", .arguments = {x, 2, none, none, 1e-3}, .active = {0}});
  expect_as_autograd({.op = "aten::group_norm", .arguments = {x, 2, w, b, 1e-3}, .active = {0}});
  expect_as_autograd({.op = "aten::group_norm", .arguments = {x, 2, w, b, 1e-3}, .active = {2, 3}});
  expect_as_autograd({.op = "aten::group_norm", .arguments = {numbers({4, 6}), 3, w, b}, .active = {0, 2, 3}});
  const at::Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
  expect_as_autograd({.op = "aten::group_norm", .arguments = {last, 3, w, b}, .active = {0, 2, 3}});
}

TEST(GroupNormRule, InstanceNorm) {
  const at::Tensor x = numbers({3, 4, 7}), w = numbers({4}), b = numbers({4}), ones = at::ones({4}, at::kDouble);
  const IValue none;
  expect_as_autograd(
      {.op = "aten::instance_norm", .arguments = {x, w, b, none, none, true, 0.1, 1e-5, false}, .active = {0, 1, 2}});
  expect_as_autograd(
      {.op = "aten::instance_norm", .arguments = {x, none, none, none, none, true, 0.1, 1e-5, false}, .active = {0}});
  expect_refused(
      {.op = "aten::instance_norm", .arguments = {x, w, b, ones, ones, false, 0.1, 1e-5, false}, .active = {0}});
}

TEST(BatchNormRule, AsAutogradInEvalMode) {
  const at::Tensor w = numbers({6}), b = numbers({6}), mean = numbers({6}), variance = numbers({6}).square() + 0.1;
  const IValue none;
  for (const at::Tensor& x :
       {numbers({3, 6, 5, 2}), numbers({7, 6}), numbers({3, 6, 5, 2}).contiguous(at::MemoryFormat::ChannelsLast)}) {
    for (const std::vector<std::size_t>& active : {std::vector<std::size_t>{0, 1, 2}, {0}, {0, 2}, {1}})
      expect_as_autograd({.op = "aten::batch_norm",
                          .arguments = {x, w, b, mean, variance, false, 0.1, 1e-5, false},
                          .active = active});
    expect_as_autograd({.op = "aten::native_batch_norm",
                        .arguments = {x, w, none, mean, variance, false, 0.1, 1e-5},
                        .active = {0, 1}});
    expect_as_autograd({.op = "aten::_native_batch_norm_legit_no_training",
                        .arguments = {x, none, none, mean, variance, 0.1, 1e-5},
                        .active = {0}});
  }
  expect_refused({.op = "aten::batch_norm",
                  .arguments = {numbers({7, 6}), w, b, mean, variance, true, 0.1, 1e-5, false},
                  .active = {0, 1, 2}});
}

}  // namespace
}  // namespace hesspect::test::norm_rules_test
