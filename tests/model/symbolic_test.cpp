// Python's integer and float arithmetic, as CPython computes it.
#include "../../src/model/symbolic.h"

#include <gtest/gtest.h>

namespace hesspect {
namespace {

c10::IValue call(const std::string& target, std::vector<c10::IValue> arguments) {
  const auto op = symbolic_op_from(target);
  EXPECT_TRUE(op) << target;
  return evaluate(*op, arguments);
}

TEST(Symbolic, FloorDivisionAndModuloRoundDown) {
  for (std::int64_t a = -7; a <= 7; ++a)
    for (const std::int64_t b : {-3, -2, 2, 3}) {
      const std::int64_t q = call("_operator.floordiv", {a, b}).toInt(), r = call("_operator.mod", {a, b}).toInt();
      EXPECT_EQ(q * b + r, a);
      EXPECT_TRUE(r == 0 || (r > 0) == (b > 0));
    }
  EXPECT_EQ(call("_operator.floordiv", {std::int64_t{-7}, std::int64_t{2}}).toInt(), -4);
}

TEST(Symbolic, TypesFollowPython) {
  EXPECT_TRUE(call("_operator.truediv", {std::int64_t{4}, std::int64_t{2}}).isDouble());
  EXPECT_TRUE(call("_operator.mul", {std::int64_t{4}, 0.5}).isDouble());
  EXPECT_EQ(call("_operator.pow", {std::int64_t{3}, std::int64_t{4}}).toInt(), 81);
  EXPECT_EQ(call("math.trunc", {-2.7}).toInt(), -2);
  EXPECT_EQ(call("math.floor", {-2.7}).toInt(), -3);
  EXPECT_EQ(call("torch.sym_max", {std::int64_t{4}, std::int64_t{9}}).toInt(), 9);
  EXPECT_TRUE(call("torch.sym_not", {false}).toBool());
  EXPECT_TRUE(call("_operator.ge", {std::int64_t{4}, std::int64_t{4}}).toBool());
}

TEST(Symbolic, OthersAreNotSymbolic) {
  EXPECT_FALSE(symbolic_op_from("torch.ops.aten.add.Tensor"));
  EXPECT_FALSE(symbolic_op_from("torch.add"));
  EXPECT_FALSE(symbolic_op_from("os.system"));
}

TEST(Symbolic, DivisionByZeroThrows) {
  EXPECT_THROW(call("_operator.floordiv", {std::int64_t{1}, std::int64_t{0}}), std::domain_error);
}

}  // namespace
}  // namespace hesspect
