#include "hesspect/core/entry_numbers.h"

#include <gtest/gtest.h>

#include <vector>

namespace hesspect::entry_numbers_test {
namespace {

/// Numbers 2, 3, 4, 7, 8, 20.
EntryNumbers sample() {
  EntryNumbers numbers;
  numbers.add(2, 1);
  numbers.add(3, 2);
  numbers.add(5, 0);
  numbers.add(7, 2);
  numbers.add(20, 1);
  return numbers;
}

TEST(EntryNumbers, EveryStretchIsVisitedOnceInOrder) {
  const EntryNumbers numbers = sample();
  const std::vector<std::int64_t> all = {2, 3, 4, 7, 8, 20};
  ASSERT_EQ(numbers.size(), 6);
  for (std::int64_t begin = 0; begin <= 6; ++begin)
    for (std::int64_t count = 0; begin + count <= 6; ++count) {
      std::vector<std::int64_t> found;
      std::int64_t next = begin;
      numbers.for_each(begin, count, [&](auto position, auto number, auto length) {
        EXPECT_EQ(position, next);
        next += length;
        for (std::int64_t i = 0; i < length; ++i) found.push_back(number + i);
      });
      EXPECT_EQ(found, std::vector<std::int64_t>(all.begin() + begin, all.begin() + begin + count));
    }
}

TEST(EntryNumbers, WhatIsLeftOutIsCounted) {
  const EntryNumbers numbers = sample();
  const std::vector<std::int64_t> left = {0, 1, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22};
  for (std::size_t i = 0; i < left.size(); ++i) EXPECT_EQ(numbers.left_out(static_cast<std::int64_t>(i), 23), left[i]);
  EXPECT_FALSE(numbers.left_out(static_cast<std::int64_t>(left.size()), 23).has_value());
  EXPECT_FALSE(numbers.left_out(15, 21).has_value());
  EXPECT_EQ(EntryNumbers().left_out(2, 3), 2);
}

}  // namespace
}  // namespace hesspect::entry_numbers_test
