#include "hesspect/krylov/vector_math.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "hesspect/core/buffer_sizes.h"

namespace hesspect::vector_math_test {
namespace {

std::vector<at::Tensor> random_rows(const std::vector<std::int64_t>& sizes, std::int64_t n, at::ScalarType dtype) {
  std::vector<at::Tensor> rows;
  for (const std::int64_t size : sizes) rows.push_back(at::randn({size, n}, at::kDouble).to(dtype));
  return rows;
}

// LibTorch's float32 dot drifts: 4e-4 off at 1e7 equal elements where it was measured.
TEST(VectorMath, Float32SumsDoNotDrift) {
  const std::int64_t n = 10'000'000;
  const at::Tensor x = at::full({n}, 0.1F, at::kFloat);
  const double each = static_cast<double>(0.1F);
  EXPECT_NEAR(norm_sq(x) / (static_cast<double>(n) * each * each), 1.0, 1e-13);
  EXPECT_NEAR(dot_product(x, x) / (static_cast<double>(n) * each * each), 1.0, 1e-13);
  const at::Tensor row[1] = {x.unsqueeze(0)};
  EXPECT_NEAR(dots(Rows(row), x)[0] / (static_cast<double>(n) * each * each), 1.0, 1e-13);
}

class VectorMathTyped : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(VectorMathTyped, AgreesWithLibTorchInDouble) {
  at::manual_seed(1);
  const at::ScalarType dtype = GetParam();
  // Lengths around the sizes of lanes, tiles and blocks; row counts around the four that kernels take at once.
  for (const std::int64_t n : {1, 7, 255, 256, 4097, 32768, 70001})
    for (const std::vector<std::int64_t>& sizes : {std::vector<std::int64_t>{1}, {3}, {4}, {5}, {16, 16, 7}}) {
      const std::vector<at::Tensor> rows = random_rows(sizes, n, dtype);
      const at::Tensor matrix = at::cat(rows).to(at::kDouble);
      at::Tensor w = at::randn({n}, at::kDouble).to(dtype);
      const at::Tensor wd = w.to(at::kDouble);
      const at::Tensor expected = at::mv(matrix, wd);
      const std::vector<double> got = dots(rows, w), portable = detail::portable_dots(rows, {&w, 1});
      const auto count = static_cast<std::size_t>(matrix.size(0));
      ASSERT_EQ(got.size(), count + 1);
      const double tolerance = 1e-13 * static_cast<double>(n);
      for (std::size_t j = 0; j < count; ++j) {
        EXPECT_NEAR(got[j], expected[static_cast<std::int64_t>(j)].item<double>(), tolerance);
        EXPECT_NEAR(portable[j], got[j], tolerance);
      }
      EXPECT_NEAR(got[count], at::dot(wd, wd).item<double>(), tolerance);

      std::vector<double> c(count);
      for (std::size_t j = 0; j < count; ++j) c[j] = std::cos(static_cast<double>(j));
      const at::Tensor updated = wd - at::mv(matrix.t(), at::tensor(c, at::kDouble));
      at::Tensor w1 = w.clone(), w2 = w.clone(), w3 = w.clone();
      const double left = subtract(rows, c, w1);
      const std::vector<double> fused = subtract_and_dots(rows, c, w2);
      detail::portable_subtract(rows, c, {&w3, 1});
      const double ulp = dtype == at::kFloat ? 1e-6 : 1e-14;
      EXPECT_LT((w1.to(at::kDouble) - updated).abs().max().item<double>(), ulp * 30);
      EXPECT_LT((w3.to(at::kDouble) - updated).abs().max().item<double>(), ulp * 30);
      EXPECT_TRUE(at::equal(w1, w2));
      EXPECT_NEAR(left, norm_sq(w1), 1e-12 * left);
      const std::vector<double> after = dots(rows, w1);
      for (std::size_t j = 0; j <= count; ++j) EXPECT_NEAR(fused[j], after[j], tolerance);

      // In one pass, to the bit what the calls one after the other give: some of the rows taken, products with all.
      const std::vector<at::Tensor> some(rows.end() - 1, rows.end());
      const std::span<const double> some_c = std::span<const double>(c).last(static_cast<std::size_t>(sizes.back()));
      at::Tensor w4 = w.clone(), w5 = w.clone();
      subtract(some, some_c, w4);
      EXPECT_EQ(subtract_and_dots(some, some_c, rows, w5), dots(rows, w4));
      EXPECT_TRUE(at::equal(w5, w4));
      combine_into(rows, c, w4);
      EXPECT_EQ(combine_and_dots(rows, c, w5), dots(rows, w4));
      EXPECT_TRUE(at::equal(w5, w4));
    }
}

void expect_independence_of_threads(const std::vector<at::Tensor>& rows, const at::Tensor& w) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const std::vector<double> one = dots(rows, w);
  at::set_num_threads(3);
  const std::vector<double> three = dots(rows, w);
  at::set_num_threads(threads);
  EXPECT_EQ(std::memcmp(one.data(), three.data(), one.size() * sizeof(double)), 0);
}

TEST_P(VectorMathTyped, DoesNotDependOnThreads) {
  at::manual_seed(2);
  const std::vector<at::Tensor> rows = random_rows({16, 5}, 200'003, GetParam());
  at::Tensor w = at::randn({200'003}, at::kDouble).to(GetParam());
  expect_independence_of_threads(rows, w);
}

TEST_P(VectorMathTyped, NothingInNothingOut) {
  at::Tensor empty = at::empty({0}, GetParam());
  const std::vector<at::Tensor> rows = {at::empty({3, 0}, GetParam())};
  EXPECT_EQ(dots(rows, empty), (std::vector<double>{0, 0, 0, 0}));
  at::Tensor w = at::ones({5}, GetParam());
  EXPECT_EQ(dots({}, w), (std::vector<double>{5}));
  EXPECT_EQ(subtract({}, {}, w), 5);
}

TEST_P(VectorMathTyped, ScaleTakesTheProductInDouble) {
  at::Tensor x = at::arange(1, 100001, at::kDouble).to(GetParam()), y = at::empty_like(x);
  scale_into(x, 1.0 / 3, y);
  EXPECT_TRUE(at::equal(y, (x.to(at::kDouble) * (1.0 / 3)).to(GetParam())));
}

TEST_P(VectorMathTyped, NarrowerRowsAreReadAsTheyAre) {
  at::manual_seed(3);
  const at::ScalarType dtype = GetParam();
  for (const at::ScalarType narrow : {at::ScalarType::BFloat16, at::kFloat})
    for (const std::int64_t n : {1, 255, 4097, 70001}) {
      // Narrow rows and, after them, two of the vectors' own type, as a Lanczos step has them.
      std::vector<at::Tensor> rows = random_rows({16, 7}, n, narrow);
      for (const at::Tensor& own : random_rows({1, 1}, n, dtype)) rows.push_back(own);
      std::vector<at::Tensor> widened;
      for (const at::Tensor& block : rows) widened.push_back(block.to(dtype));
      const at::Tensor w = at::randn({n}, at::kDouble).to(dtype);
      std::vector<double> c(25);
      for (std::size_t j = 0; j < 25; ++j) c[j] = std::cos(static_cast<double>(j));

      const double tolerance = 1e-13 * static_cast<double>(n);
      const std::vector<double> got = dots(rows, w), expected = dots(widened, w);
      const std::vector<double> portable = detail::portable_dots(rows, {&w, 1});
      for (std::size_t j = 0; j < 26; ++j) {
        EXPECT_NEAR(got[j], expected[j], tolerance);
        EXPECT_NEAR(portable[j], expected[j], tolerance);
      }
      at::Tensor w1 = w.clone(), w2 = w.clone(), w3 = w.clone(), w4 = w.clone();
      subtract(widened, c, w1);
      const double left = subtract(rows, c, w2);
      subtract_and_dots(rows, c, w3);
      detail::portable_subtract(rows, c, {&w4, 1});
      const double ulp = dtype == at::kFloat ? 3e-5 : 3e-13;
      EXPECT_LT((w2 - w1).abs().max().item<double>(), ulp);
      EXPECT_LT((w4 - w1).abs().max().item<double>(), ulp);
      EXPECT_TRUE(at::equal(w2, w3));
      EXPECT_NEAR(left, norm_sq(w2), 1e-12 * left);
    }
}

TEST_P(VectorMathTyped, PortableChunksAddUp) {
  at::manual_seed(5);
  const std::int64_t n = kEntriesInDouble / 17 + 26'213;  // a vector and 16 rows: a chunk, and a little of the next
  std::vector<at::Tensor> rows = {at::randn({16, n}, at::kFloat).to(at::ScalarType::BFloat16)};
  rows.push_back(at::randn({1, n}, at::kFloat).to(GetParam()));
  const at::Tensor w = at::randn({n}, at::kFloat).to(GetParam());
  const std::vector<double> expected = dots(rows, w), portable = detail::portable_dots(rows, {&w, 1});
  for (std::size_t j = 0; j < 18; ++j) EXPECT_NEAR(portable[j], expected[j], 1e-6) << j;
  at::Tensor w1 = w.clone(), w2 = w.clone();
  const std::vector<double> c(17, 0.3);
  subtract(rows, c, w1);
  detail::portable_subtract(rows, c, {&w2, 1});
  EXPECT_LT((w2 - w1).abs().max().item<double>(), GetParam() == at::kFloat ? 3e-6 : 1e-13);
}

// A run that was resumed on a GPU had other bits than one that was not: what it read back lay in blocks of other sizes.
TEST_P(VectorMathTyped, PortableSumsDoNotDependOnBlocks) {
  at::manual_seed(6);
  const std::int64_t n = 2'003;
  const at::Tensor all = at::randn({37, n}, GetParam()), w = at::randn({2, n}, GetParam());
  const auto cut = [&](const std::vector<std::int64_t>& sizes) {
    std::vector<at::Tensor> rows;
    for (const at::Tensor& part : all.split_with_sizes(sizes)) rows.push_back(part.clone());
    return rows;
  };
  const std::vector<double> c(74, 0.3);
  for (const std::size_t vectors : {1U, 2U}) {
    const auto result = [&](const std::vector<std::int64_t>& sizes) {
      const std::vector<at::Tensor> rows = cut(sizes);
      std::vector<at::Tensor> given = {w[0].clone(), w[1].clone()};
      const std::span<at::Tensor> some(given.data(), vectors);
      std::vector<double> sums = detail::portable_dots(rows, some);
      detail::portable_subtract(rows, {c.data(), 37 * vectors}, some);
      for (const at::Tensor& one : some) sums.push_back(one.to(at::kDouble).sum().item<double>());
      return sums;
    };
    const std::vector<double> whole = result({16, 16, 5});
    EXPECT_EQ(result({2, 16, 16, 3}), whole);
    EXPECT_EQ(result({1, 1, 20, 15}), whole);
    EXPECT_EQ(result({37}), whole);
  }
}

TEST_P(VectorMathTyped, NarrowerRowsDoNotDependOnThreadsEither) {
  at::manual_seed(4);
  const std::vector<at::Tensor> rows = random_rows({16, 5}, 200'003, at::ScalarType::BFloat16);
  const at::Tensor w = at::randn({200'003}, at::kDouble).to(GetParam());
  expect_independence_of_threads(rows, w);
}

TEST_P(VectorMathTyped, SeveralVectorsAtOnceGiveWhatEachGivesAlone) {
  at::manual_seed(6);
  const at::ScalarType dtype = GetParam();
  for (const std::int64_t n : {1, 4097, 70001})
    for (const std::size_t vectors : {1U, 2U, 5U}) {
      std::vector<at::Tensor> rows = random_rows({16, 7}, n, at::ScalarType::BFloat16);
      rows.push_back(at::randn({3, n}, at::kDouble).to(dtype));
      std::vector<at::Tensor> w;
      for (std::size_t k = 0; k < vectors; ++k) w.push_back(at::randn({n}, at::kDouble).to(dtype));
      std::vector<double> c(26 * vectors);
      for (std::size_t j = 0; j < c.size(); ++j) c[j] = std::cos(static_cast<double>(j));

      const auto copies = [&] {
        std::vector<at::Tensor> all;
        for (const at::Tensor& one : w) all.push_back(one.clone());
        return all;
      };
      std::vector<at::Tensor> alone = copies(), together = copies(), fused = copies(), portable = copies();
      const std::vector<double> before = dots_block(rows, w), portable_before = detail::portable_dots(rows, w);
      const std::vector<double> left = subtract_block(rows, c, together);
      const std::vector<double> after = subtract_and_dots_block(rows, c, fused);
      detail::portable_subtract(rows, c, portable);
      ASSERT_EQ(before.size(), 27 * vectors);
      ASSERT_EQ(after.size(), 27 * vectors);
      ASSERT_EQ(left.size(), vectors);
      for (std::size_t k = 0; k < vectors; ++k) {
        const std::vector<double> one_before = dots(rows, w[k]);
        const std::vector<double> one_after = subtract_and_dots(rows, std::span(c).subspan(26 * k, 26), alone[k]);
        for (std::size_t j = 0; j < 27; ++j) {
          EXPECT_EQ(before[27 * k + j], one_before[j]);
          EXPECT_EQ(after[27 * k + j], one_after[j]);
          EXPECT_NEAR(portable_before[27 * k + j], one_before[j], 1e-13 * static_cast<double>(n));
        }
        EXPECT_EQ(left[k], one_after.back());
        EXPECT_TRUE(at::equal(together[k], alone[k]));
        EXPECT_TRUE(at::equal(fused[k], alone[k]));
        EXPECT_LT((portable[k] - alone[k]).abs().max().item<double>(), dtype == at::kFloat ? 3e-5 : 3e-13);
      }
    }
  EXPECT_EQ(dots_block({}, std::vector{at::ones({5}, dtype), at::zeros({5}, dtype)}), (std::vector<double>{5, 0}));
}

TEST_P(VectorMathTyped, RowsAreCombinedInPlace) {
  at::manual_seed(7);
  for (const std::int64_t n : {1, 2048, 5001})
    for (const std::int64_t count : {1, 20, 23}) {
      const std::vector<at::Tensor> rows = random_rows({16, 7}, n, GetParam());
      const at::Tensor old = at::cat(rows).to(at::kDouble), s = at::randn({count, 23}, at::kDouble);
      combine_rows(rows, {s.const_data_ptr<double>(), static_cast<std::size_t>(s.numel())}, count);
      const at::Tensor now = at::cat(rows).to(at::kDouble);
      const double tolerance = GetParam() == at::kFloat ? 1e-5 : 1e-13;
      EXPECT_LT((now.narrow(0, 0, count) - at::mm(s, old)).abs().max().item<double>(), tolerance);
      EXPECT_TRUE(at::equal(now.narrow(0, count, 23 - count), old.narrow(0, count, 23 - count)));
    }
}

TEST(VectorMath, AllBfloat16ValuesWidenExactly) {
  const at::Tensor bits = at::arange(0, 65536, at::kInt).to(at::kShort);
  const at::Tensor values = bits.view(at::ScalarType::BFloat16);
  const at::Tensor finite = at::where(at::isfinite(values), values, at::zeros_like(values));
  for (std::int64_t i = 0; i < 65536; i += 997) {  // each alone, so that no sum hides it
    const at::Tensor row[1] = {finite.narrow(0, i, 1).unsqueeze(0)};
    EXPECT_EQ(dots(Rows(row), at::ones({1}, at::kDouble))[0], finite[i].item<double>());
  }
}

TEST(VectorMath, RowsWiderThanTheVectorAreRefused) {
  const at::Tensor row[1] = {at::ones({1, 5}, at::kDouble)};
  EXPECT_ANY_THROW(dots(Rows(row), at::ones({5}, at::kFloat)));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, VectorMathTyped, ::testing::Values(at::kFloat, at::kDouble));

}  // namespace
}  // namespace hesspect::vector_math_test
