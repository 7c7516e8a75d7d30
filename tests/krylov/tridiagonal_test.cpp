// T as a value: grown by hand, without a vector.
#include "hesspect/krylov/tridiagonal.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/lanczos_record.h"
#include "krylov/test_operators.h"

namespace hesspect::tridiagonal_test {
namespace {

/// Steps, a breakdown, a fresh block, a thick restart that keeps three of seven rows, further steps.
/// @param look  called with T after each change
template <class Look>
Tridiagonal grown(Look&& look) {
  Tridiagonal t;
  t.n = 50;
  const auto step = [&](double x, bool closes = false) {
    t.add_step(std::sin(x), closes ? 1e-15 : 1 + std::cos(x) / 2, 2 + std::cos(3 * x), closes);
    look(t);
  };
  look(t);
  for (int i = 0; i < 4; ++i) step(i, i == 3);
  t.begin_block();
  look(t);
  for (int i = 4; i < 7; ++i) step(i);
  t.restart_thick({t.steps(), {-1.5, 0.25, 2}, {0.1, -0.2, 0.3}});
  look(t);
  for (int i = 7; i < 12; ++i) step(i);
  return t;
}

TEST(Tridiagonal, CountsItsRows) {
  std::vector<std::int64_t> rows, first;
  std::vector<std::size_t> blocks;
  grown([&](const Tridiagonal& t) {
    rows.push_back(t.rows());
    first.push_back(t.first_row());
    blocks.push_back(t.first_block());
  });
  EXPECT_EQ(rows, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 4, 5, 6, 7, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(first, (std::vector<std::int64_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8}));
  EXPECT_EQ(blocks, (std::vector<std::size_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2}));
  Tridiagonal t = grown([](const Tridiagonal&) {});
  EXPECT_EQ(t.steps(), 12);
  EXPECT_EQ(t.scale(), *std::max_element(t.product_norm.begin(), t.product_norm.end()));
  EXPECT_FALSE(t.complete());
  t.restart_thick({t.steps(), {1}, {1}});
  EXPECT_EQ(t.first_row(), 8 + 8 + 1);
}

// The oracle is LAPACK on the whole dense matrix: blocks and arrow are not solved apart there.
TEST(Tridiagonal, RitzPairsAreThoseOfTheDenseMatrix) {
  int looks = 0;
  grown([&](const Tridiagonal& t) {
    if (t.rows() == 0 || (!t.thick_restarts.empty() && t.thick_restarts.back().step == t.steps())) return;
    ++looks;
    const Projection p = t.projection();
    const at::Tensor dense = at::tensor(p.t, at::kDouble).view({p.rows, p.rows});
    const at::Tensor expected = at::linalg_eigvalsh(dense);
    const std::vector<RitzPair> pairs = t.ritz_pairs();
    const at::Tensor s =
        at::tensor(t.ritz_coefficients(testing::first_indices(t.rows())), at::kDouble).view({p.rows, p.rows});
    for (std::int64_t i = 0; i < p.rows; ++i) {
      const RitzPair& pair = pairs[static_cast<std::size_t>(i)];
      EXPECT_NEAR(pair.value, expected[i].item<double>(), 1e-14);
      EXPECT_LT((at::mv(dense, s[i]) - pair.value * s[i]).norm().item<double>(), 1e-14);
      EXPECT_NEAR(pair.residual, std::abs(p.beta * s[i][p.rows - 1].item<double>()), 1e-14);
    }
  });
  EXPECT_EQ(looks, 13);
}

TEST(Tridiagonal, HasNoProjectionRightAfterAThickRestart) {
  Tridiagonal t = grown([](const Tridiagonal&) {});
  t.restart_thick({t.steps(), {1, 2}, {0.5, -0.5}});
  EXPECT_THROW(t.projection(), Error);
  EXPECT_EQ(t.residual_coefficients(), (std::vector<double>{0.5, -0.5}));
  EXPECT_EQ(t.ritz_pairs()[1].residual, 0.5);
}

TEST(Replay, GoesThroughTheSameStates) {
  std::vector<Tridiagonal> states;
  const Tridiagonal whole = grown([&](const Tridiagonal& t) { states.push_back(t); });
  const Replay replay(whole);
  Tridiagonal t;
  t.n = whole.n;
  EXPECT_EQ(replay.steps_left(t), 12);
  EXPECT_FALSE(replay.has_rows(t));
  for (std::size_t i = 0; i + 1 < states.size(); ++i) {
    ASSERT_EQ(t, states[i]) << i;
    EXPECT_FALSE(replay.over(t));
    if (t.breakdown())
      EXPECT_TRUE(replay.begin_block(t));
    else
      replay.take_next(t);
  }
  EXPECT_EQ(t, whole);
  EXPECT_TRUE(replay.over(t));
  EXPECT_TRUE(replay.has_rows(t));
  EXPECT_FALSE(replay.begin_block(t));
  EXPECT_FALSE(replay.restart_thick(t));
  EXPECT_TRUE(Replay().over(Tridiagonal()));
}

}  // namespace
}  // namespace hesspect::tridiagonal_test
