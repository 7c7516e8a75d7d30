// Python's integer and float arithmetic, as CPython computes it.
#include "../../src/model/symbolic.h"

#include <gtest/gtest.h>

#include <limits>

namespace hesspect::symbolic_test {
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
  EXPECT_THROW(call("_operator.mod", {std::int64_t{1}, std::int64_t{0}}), std::domain_error);
  EXPECT_THROW(call("_operator.floordiv", {1.0, std::int64_t{0}}), std::domain_error);
  EXPECT_THROW(call("_operator.mod", {1.0, 0.0}), std::domain_error);
  EXPECT_THROW(call("_operator.pow", {std::int64_t{0}, std::int64_t{-1}}), std::domain_error);
}

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max(),
                       kLeast = std::numeric_limits<std::int64_t>::min();

/// Python's ints grow; here a size that left 64 bits wrapped around, and INT64_MIN / -1 ended the process.
TEST(Symbolic, IntegersBeyond64BitsAreErrors) {
  const auto fails = [](const std::string& op, std::vector<c10::IValue> arguments) {
    EXPECT_THROW(call(op, std::move(arguments)), std::domain_error) << op;
  };
  fails("_operator.add", {kMost, std::int64_t{1}});
  fails("_operator.sub", {kLeast, std::int64_t{1}});
  fails("_operator.mul", {kMost, std::int64_t{2}});
  fails("_operator.floordiv", {kLeast, std::int64_t{-1}});
  fails("_operator.neg", {kLeast});
  fails("builtins.abs", {kLeast});
  fails("torch.sym_sum", {kMost, kMost});
  fails("_operator.pow", {std::int64_t{2}, std::int64_t{63}});
  fails("_operator.pow", {std::int64_t{10}, kMost});
  fails("math.trunc", {0x1p63});
  fails("math.floor", {std::numeric_limits<double>::quiet_NaN()});
  fails("torch.sym_int", {-std::numeric_limits<double>::infinity()});
  EXPECT_EQ(call("_operator.mod", {kLeast, std::int64_t{-1}}).toInt(), 0);
  EXPECT_EQ(call("_operator.floordiv", {kLeast, std::int64_t{1}}).toInt(), kLeast);
  EXPECT_EQ(call("math.trunc", {-0x1p63}).toInt(), kLeast);
}

/// The power was a loop of as many steps as the exponent says: 2^63 of them took for ever.
TEST(Symbolic, PowersOfHugeExponentsEnd) {
  EXPECT_EQ(call("_operator.pow", {std::int64_t{1}, kMost}).toInt(), 1);
  EXPECT_EQ(call("_operator.pow", {std::int64_t{-1}, kMost}).toInt(), -1);
  EXPECT_EQ(call("_operator.pow", {std::int64_t{0}, kMost}).toInt(), 0);
  EXPECT_EQ(call("_operator.pow", {std::int64_t{-2}, std::int64_t{63}}).toInt(), kLeast);
  EXPECT_EQ(call("_operator.pow", {std::int64_t{3}, std::int64_t{39}}).toInt(), 4052555153018976267);
  EXPECT_DOUBLE_EQ(call("_operator.pow", {std::int64_t{2}, std::int64_t{-2}}).toDouble(), 0.25);
}

/// `&` and `|` of ints were taken for `and` and `or`; the larger of two ints was told by their floats.
TEST(Symbolic, BitsAndLargeIntsAreExact) {
  EXPECT_EQ(call("_operator.and_", {std::int64_t{6}, std::int64_t{3}}).toInt(), 2);
  EXPECT_EQ(call("_operator.or_", {std::int64_t{6}, std::int64_t{3}}).toInt(), 7);
  EXPECT_TRUE(call("_operator.or_", {true, false}).isBool());
  EXPECT_EQ(call("torch.sym_max", {kMost, kMost - 1}).toInt(), kMost);
  EXPECT_EQ(call("torch.sym_min", {kMost, kMost - 1}).toInt(), kMost - 1);
}

/// What Python raises an error for was an infinity or NaN, which a size or a scale then was made of.
TEST(Symbolic, FloatsFollowPython) {
  EXPECT_THROW(call("_operator.pow", {-8.0, 0.5}), std::domain_error);
  EXPECT_THROW(call("_operator.pow", {10.0, 400.0}), std::domain_error);
  EXPECT_THROW(call("torch._sym_sqrt", {-1.0}), std::domain_error);
  EXPECT_EQ(call("_operator.floordiv", {-7.5, 2.0}).toDouble(), -4);
  EXPECT_EQ(call("_operator.mod", {-7.5, 2.0}).toDouble(), 0.5);
  EXPECT_EQ(call("_operator.mod", {7.5, -2.0}).toDouble(), -0.5);
  EXPECT_EQ(call("_operator.mod", {-1e-20, 1.0}).toDouble(), 1.0);
}

}  // namespace
}  // namespace hesspect::symbolic_test
