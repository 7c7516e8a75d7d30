// Memory for large arrays, so that what a process holds stays near what it uses.
//
// A heap that parts and joins large blocks is left with holes as large as the blocks in use. Here each
// block is a mapping of its own. One that is given back is kept for the next of its size, since new pages cost a third
// of a product's time; but never so many of them that all together are much more than the most that was ever in use at
// once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace hesspect {

/// Thread-safe.
class LargeBlocks {
 public:
  /// The process's own, which outlives everything.
  static LargeBlocks& of_process();

  LargeBlocks() = default;
  ~LargeBlocks();
  LargeBlocks(const LargeBlocks&) = delete;
  LargeBlocks& operator=(const LargeBlocks&) = delete;

  /// Blocks of fewer bytes are better off in the heap.
  static constexpr std::size_t kSmallest = std::size_t{256} << 10;

  /// @return aligned to 64 bytes; nullptr where the system has no more
  void* take(std::size_t bytes);
  /// @return the bytes that were asked for; 0 where it is none of these blocks
  std::size_t give_back(void* block);
  /// Gives what is kept for reuse back to the system, and forgets how much was in use at once.
  void trim();
  std::int64_t bytes_in_use() const;
  /// Of blocks that are kept for reuse.
  std::int64_t bytes_kept() const;

 private:
  struct Mapping {
    char* begin = nullptr;
    std::size_t size = 0;
    std::size_t offset = 0;  // of what is handed out
    std::size_t asked = 0;
  };
  using Age = std::uint64_t;

  Mapping take_kept(std::size_t size);
  Mapping map_new(std::size_t size);
  /// Until no more than `bytes` are kept; the longest unused go first.
  void unmap_all_but(std::size_t bytes);

  mutable std::mutex mutex_;
  std::unordered_map<void*, Mapping> used_;        // by what was handed out
  std::map<Age, Mapping> kept_;                    // oldest first
  std::set<std::pair<std::size_t, Age>> by_size_;  // of those kept
  std::size_t used_bytes_ = 0, kept_bytes_ = 0, most_used_ = 0;
  Age next_age_ = 0;
  std::size_t next_offset_ = 0;
};

}  // namespace hesspect
