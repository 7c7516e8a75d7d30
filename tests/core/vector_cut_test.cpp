// Cuts of vectors set by set: every entry is one rank's, and what files say of a cut is believed only where it is one.
#include "hesspect/core/vector_cut.h"

#include <gtest/gtest.h>

#include <vector>

namespace hesspect::vector_cut_test {
namespace {

VectorCut example(int ranks, std::int64_t unit) {
  VectorCut cut(ranks);
  cut.add({{0, 3}, {8, 2}}, unit);
  cut.add({{3, 5}}, unit);
  cut.add({{10, 1}}, unit);
  return cut;
}

TEST(VectorCut, EveryEntryIsOneRanks) {
  for (const int ranks : {1, 2, 3, 5, 12})
    for (const std::int64_t unit : {1, 4}) {
      const VectorCut cut = example(ranks, unit);
      std::vector<int> owners(11, 0);
      for (int rank = 0; rank < ranks; ++rank) {
        std::vector<bool> used(static_cast<std::size_t>(cut.chunk()));
        cut.for_each(rank, [&](std::int64_t position, std::int64_t begin, std::int64_t size) {
          for (std::int64_t i = 0; i < size; ++i) {
            ++owners[static_cast<std::size_t>(begin + i)];
            EXPECT_FALSE(used.at(static_cast<std::size_t>(position + i)));
            used.at(static_cast<std::size_t>(position + i)) = true;
          }
        });
      }
      EXPECT_EQ(owners, std::vector<int>(11, 1)) << ranks << " ranks";
      EXPECT_EQ(cut.n(), 11);
      for (const VectorCut::Set& set : cut.sets()) EXPECT_EQ(set.chunk % unit, 0);
    }
}

TEST(VectorCut, StretchesAreInTheSetsOrder) {
  const VectorCut cut = example(2, 1);
  std::vector<std::vector<std::int64_t>> found;
  cut.for_each(1, [&](std::int64_t position, std::int64_t begin, std::int64_t size) {
    found.push_back({position, begin, size});
  });
  EXPECT_EQ(found, (std::vector<std::vector<std::int64_t>>{{0, 8, 2}, {3, 6, 2}}));
}

TEST(VectorCut, ComesBackFromNumbers) {
  for (const int ranks : {1, 3}) {
    const VectorCut cut = example(ranks, 4);
    const auto again = VectorCut::from_numbers(cut.numbers(), 11);
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, cut);
  }
}

TEST(VectorCut, NumbersOfNoCutAreRefused) {
  const auto is_cut = [](const std::vector<std::int64_t>& numbers) {
    return VectorCut::from_numbers(numbers, 4).has_value();
  };
  EXPECT_TRUE(is_cut({2, 2, 1, 0, 4}));
  EXPECT_TRUE(is_cut({2, 1, 1, 0, 2, 1, 1, 2, 2}));
  const std::vector<std::vector<std::int64_t>> wrong = {
      {},                                       // nothing
      {0, 2, 1, 0, 4},                          // no rank
      {2, 1, 1, 0, 4},                          // a chunk that is too short
      {2, 2, 1, 0, 3},                          // an entry that is no rank's
      {2, 2, 1, 1, 4},                          // beyond the end
      {2, 2, 1, -1, 4},                         // before the beginning
      {2, 2, 2, 0, 4},                          // fewer ranges than it says
      {2, 2, -1, 0, 4},                         // a negative number of them
      {2, 2, 2, 0, 2, 1, 2},                    // an entry twice
      {2, 1, 1, 0, 2, 1, 1, 2, 2, 7},           // something more
      {2, INT64_MAX, 1, 0, 4},                  // no memory has that
      {2, 2, 1, 1, INT64_MAX},                  // nor that
      {2, 2, 3, 0, INT64_MAX, 0, INT64_MAX, 2}  // nor their sum
  };
  for (const auto& numbers : wrong) EXPECT_FALSE(is_cut(numbers)) << ::testing::PrintToString(numbers);
}

}  // namespace
}  // namespace hesspect::vector_cut_test
