// Matrix products in bfloat16: which are, which are not, and for how long; and who is refused.
#include "hesspect/tangent/precision.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "../../src/tangent/rounded_products.h"
#include "hesspect/core/errors.h"

namespace hesspect::precision_test {
namespace {

at::Tensor numbers(std::vector<std::int64_t> shape, at::ScalarType dtype = at::kFloat) {
  at::manual_seed(3);
  return at::randn(shape, at::kDouble).to(dtype);
}

at::Tensor rounded(const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kDouble); }

double relative(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b.to(at::kDouble)).norm() / b.to(at::kDouble).norm()).item<double>();
}

std::string refusal(MatrixPrecision precision, const MatrixUnits& units) {
  try {
    require_units(precision, units);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

class CpuUnits : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!matrix_units(at::kCPU).bf16) GTEST_SKIP() << matrix_units(at::kCPU).lack;
  }
};

TEST_F(CpuUnits, MultiplyRoundedOperandsWithinAScope) {
  const at::Tensor a = numbers({160, 256}), b = numbers({256, 128}), c = numbers({160, 128});
  const at::Tensor exact = at::mm(rounded(a), rounded(b));
  const at::Tensor before = at::mm(a, b);
  EXPECT_GT(relative(before, exact), 1e-4);
  {
    const PrecisionScope scope(MatrixPrecision::kBf16);
    EXPECT_LE(relative(at::mm(a, b), exact), 1e-6);
    EXPECT_LE(relative(at::mm(a, b.t().contiguous().t()), exact), 1e-6);
    EXPECT_LE(relative(c.clone().addmm_(a, b), c.to(at::kDouble) + exact), 1e-6);
    const at::Tensor batches = at::bmm(a.view({4, 40, 256}), b.expand({4, 256, 128}));
    EXPECT_LE(relative(batches.view({160, 128}), exact), 1e-6);
    EXPECT_LE(relative(at::linear(a.view({4, 40, 256}), b.t()).view({160, 128}), exact), 1e-6);
    const at::Tensor small = at::mm(a.narrow(0, 0, 8), b);
    EXPECT_LE(relative(small, before.narrow(0, 0, 8)), 1e-6) << "not worth it, and not done";
    const at::Tensor wide = numbers({160, 256}, at::kDouble), tall = numbers({256, 128}, at::kDouble);
    EXPECT_LE(relative(at::mm(wide, tall), at::matmul(wide, tall)), 1e-15) << "float64 is not touched";
    EXPECT_GT(relative(at::mm(wide, tall), at::mm(rounded(wide), rounded(tall))), 1e-4) << "float64 is not touched";
    {
      const PrecisionScope full(MatrixPrecision::kFp32);
      EXPECT_TRUE(at::equal(at::mm(a, b), before));
    }
    EXPECT_LE(relative(at::mm(a, b), exact), 1e-6);
  }
  EXPECT_TRUE(at::equal(at::mm(a, b), before));
}

TEST_F(CpuUnits, ConvolveRoundedOperandsWithinAScope) {
  const at::Tensor x = numbers({8, 32, 12, 12}).contiguous(at::MemoryFormat::ChannelsLast), w = numbers({32, 32, 3, 3});
  const at::Tensor exact = at::conv2d(rounded(x), rounded(w)), before = at::conv2d(x, w);
  EXPECT_GT(relative(before, exact), 1e-4);
  {
    const PrecisionScope scope(MatrixPrecision::kBf16);
    EXPECT_LE(relative(at::conv2d(x, w), exact), 1e-6);
  }
  EXPECT_TRUE(at::equal(at::conv2d(x, w), before));
}

// What GPUs do in bf16, on the CPU: every form of a product is asked for the rounded one.
TEST(RoundedProducts, AreTakenInEveryForm) {
  const at::NoGradGuard no_grad;
  const at::Tensor a = numbers({6, 10}), b = numbers({10, 4}), c = numbers({6, 4}), bias = numbers({4});
  const at::Tensor exact = at::mm(rounded(a), rounded(b));
  const at::Tensor plain = at::mm(a, b);
  const at::Tensor as = a.view({2, 3, 10}), bs = b.expand({2, 10, 4}), cs = c.view({2, 3, 4});
  {
    const RoundedProducts scope(Rounding::kByCopies);
    const auto check = [&](const at::Tensor& y, const at::Tensor& expected, const char* what) {
      EXPECT_LE(relative(y.reshape({6, 4}), expected), 1e-6) << what;
    };
    at::Tensor out = at::empty({4, 6}).t(), outs = at::empty({2, 3, 4}), nan = at::full({6, 4}, NAN);
    check(at::mm(a, b), exact, "mm");
    check(at::mm_out(out, a, b), exact, "mm_out");
    check(at::bmm(as, bs), exact, "bmm");
    check(at::bmm_out(outs, as, bs), exact, "bmm_out");
    check(at::addmm(bias, a, b), bias + exact, "addmm");
    check(at::addmm(c, a, b, 0.5, 2), 0.5 * c + 2 * exact, "addmm with factors");
    check(at::addmm(nan, a, b, 0), exact, "addmm of nothing");
    check(at::addmm_out(out, c, a, b), c + exact, "addmm_out");
    check(out.copy_(c).addmm_(a, b), c + exact, "addmm_");
    check(out.copy_(c).addmm_(a, b, 0.5, 2), 0.5 * c + 2 * exact, "addmm_ with factors");
    check(at::baddbmm(cs, as, bs), c + exact, "baddbmm");
    check(at::baddbmm_out(outs, cs, as, bs), c + exact, "baddbmm_out");
    check(outs.copy_(cs).baddbmm_(as, bs), c + exact, "baddbmm_");
    check(at::linear(a, b.t(), bias), bias + exact, "linear");
    check(at::linear(as, b.t()), exact, "linear of batches");
    check(at::matmul(as, b), exact, "matmul");
    check(at::einsum("ij,jk->ik", {a, b}), exact, "einsum");
    EXPECT_GT(relative(at::mm(a, b), plain), 1e-4);
    const at::Tensor wide = a.to(at::kDouble), tall = b.to(at::kDouble);
    EXPECT_GT(relative(at::mm(wide, tall), exact), 1e-4) << "float64 is not touched";
    const at::AutoGradMode grad(true);
    EXPECT_TRUE(at::equal(at::mm(a, b), plain)) << "what autograd records is not rounded";
  }
  EXPECT_TRUE(at::equal(at::mm(a, b), plain));
}

TEST(MatrixUnits, WhoIsRefused) {
  const MatrixUnits none{.device = "the CPU of x", .lack = "has no amx_bf16", .lack_of_tf32 = "has no units for it"};
  const MatrixUnits amx{.bf16 = true, .device = "the CPU of x", .lack_of_tf32 = "has no units for it"};
  const MatrixUnits both{.tf32 = true, .bf16 = true, .device = "the GPU of x"};
  EXPECT_EQ(refusal(MatrixPrecision::kFp32, none), "");
  EXPECT_EQ(refusal(MatrixPrecision::kBf16, amx), "");
  EXPECT_EQ(refusal(MatrixPrecision::kBf16, both), "");
  EXPECT_EQ(refusal(MatrixPrecision::kTf32, both), "");
  EXPECT_EQ(refusal(MatrixPrecision::kBf16, none),
            "--precision bf16: the CPU of x has no amx_bf16; give --precision fp32");
  EXPECT_EQ(refusal(MatrixPrecision::kTf32, none),
            "--precision tf32: the CPU of x has no units for it; give --precision fp32");
  EXPECT_EQ(refusal(MatrixPrecision::kTf32, amx),
            "--precision tf32: the CPU of x has no units for it; give --precision fp32 or bf16");
}

TEST_F(CpuUnits, AreNotThereWhereTheEnvironmentForbidsThem) {
  setenv("ONEDNN_MAX_CPU_ISA", "avx512_core_bf16", 1);
  const MatrixUnits limited = matrix_units(at::kCPU);
  setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", 1);
  const MatrixUnits allowed = matrix_units(at::kCPU);
  unsetenv("ONEDNN_MAX_CPU_ISA");
  EXPECT_FALSE(limited.bf16);
  EXPECT_NE(limited.lack.find("ONEDNN_MAX_CPU_ISA=avx512_core_bf16"), std::string::npos);
  EXPECT_TRUE(allowed.bf16);
}

}  // namespace
}  // namespace hesspect::precision_test
