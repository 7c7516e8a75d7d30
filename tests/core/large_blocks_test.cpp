#include "hesspect/core/large_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "hesspect/core/memory.h"
#include "support/heap.h"

namespace hesspect::large_blocks_test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(LargeBlocks, AreAlignedAndServeAgain) {
  LargeBlocks blocks;
  void* const a = blocks.take(5 * kMiB + 100);
  void* const b = blocks.take(5 * kMiB + 100);
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  for (void* const block : {a, b}) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 64, 0u);
    std::memset(block, 1, 5 * kMiB + 100);
  }
  // Not at the same place of a page, or they would share sets of the cache.
  EXPECT_NE(reinterpret_cast<std::uintptr_t>(a) % 4096, reinterpret_cast<std::uintptr_t>(b) % 4096);
  EXPECT_GE(blocks.bytes_in_use(), static_cast<std::int64_t>(10 * kMiB));
  EXPECT_EQ(blocks.give_back(a), 5 * kMiB + 100);
  EXPECT_EQ(blocks.take(5 * kMiB), a);
  int elsewhere = 0;
  EXPECT_EQ(blocks.give_back(&elsewhere), 0u);
}

TEST(LargeBlocks, AFarLargerBlockDoesNotServe) {
  LargeBlocks blocks;
  void* const large = blocks.take(40 * kMiB);
  blocks.give_back(large);
  EXPECT_NE(blocks.take(6 * kMiB), large);
}

TEST(LargeBlocks, TrimGivesBackWhatIsKept) {
  LargeBlocks blocks;
  const std::int64_t before = resident_memory_bytes();
  void* const block = blocks.take(64 * kMiB);
  std::memset(block, 1, 64 * kMiB);
  EXPECT_GE(resident_memory_bytes() - before, static_cast<std::int64_t>(60 * kMiB));
  blocks.give_back(block);
  EXPECT_GE(blocks.bytes_kept(), static_cast<std::int64_t>(64 * kMiB));
  EXPECT_EQ(blocks.bytes_in_use(), 0);
  blocks.trim();
  EXPECT_EQ(blocks.bytes_kept(), 0);
  if (test::kHeapIsCounted) {
    EXPECT_LT(resident_memory_bytes() - before, static_cast<std::int64_t>(4 * kMiB));
  }
}

/// Blocks of all sizes that come and go in any order, which leave a heap with holes as large as they are.
TEST(LargeBlocks, TakeLittleMoreThanTheMostInUse) {
  LargeBlocks blocks;
  std::mt19937 random(3);
  std::vector<void*> held;
  std::int64_t most_used = 0, most = 0;
  for (int i = 0; i < 20'000; ++i) {
    if (held.empty() || (held.size() < 40 && random() % 2 == 0)) {
      held.push_back(blocks.take((1 + random() % 48) * kMiB + random() % kMiB));
      ASSERT_NE(held.back(), nullptr);
    } else {
      std::swap(held[random() % held.size()], held.back());
      EXPECT_GT(blocks.give_back(held.back()), 0u);
      held.pop_back();
    }
    most_used = std::max(most_used, blocks.bytes_in_use());
    most = std::max(most, blocks.bytes_in_use() + blocks.bytes_kept());
  }
  EXPECT_LE(most, most_used + most_used / 8 + static_cast<std::int64_t>(16 * kMiB));
  for (void* const block : held) blocks.give_back(block);
}

}  // namespace
}  // namespace hesspect::large_blocks_test
