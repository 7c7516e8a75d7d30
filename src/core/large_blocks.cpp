#include "hesspect/core/large_blocks.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace hesspect {
namespace {

constexpr std::size_t kPage = 4096;
/// A kept block serves where it is at most this much larger than what is asked for.
constexpr std::size_t kLargerBy = 8;  // an eighth
/// What all blocks may take beyond the most that was in use at once: a share, and a little more for small programs.
constexpr std::size_t kShareBeyond = 8;  // an eighth
constexpr std::size_t kBytesBeyond = std::size_t{16} << 20;

/// Sixteen sizes from one power of two to the next: blocks of nearly one size then serve each other.
std::size_t rounded(std::size_t bytes) {
  const std::size_t step = std::max(kPage, std::bit_floor(bytes) / 16);
  return (bytes + step - 1) / step * step;
}

}  // namespace

LargeBlocks& LargeBlocks::of_process() {
  static auto* const blocks = new LargeBlocks;  // tensors of static storage go after everything else
  return *blocks;
}

LargeBlocks::~LargeBlocks() { unmap_all_but(0); }

void* LargeBlocks::take(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::size_t size = rounded(bytes + kPage);
  Mapping mapping = take_kept(size);
  if (mapping.begin == nullptr) mapping = map_new(size);
  if (mapping.begin == nullptr) return nullptr;
  mapping.asked = bytes;
  used_bytes_ += mapping.size;
  most_used_ = std::max(most_used_, used_bytes_);
  void* const block = mapping.begin + mapping.offset;
  used_.emplace(block, mapping);
  return block;
}

LargeBlocks::Mapping LargeBlocks::take_kept(std::size_t size) {
  const auto found = by_size_.lower_bound({size, 0});
  if (found == by_size_.end() || found->first > size + size / kLargerBy) return {};
  // Of one size the one that was used last: it may still be in the cache.
  const auto last = std::prev(by_size_.lower_bound({found->first + 1, 0}));
  const auto kept = kept_.find(last->second);
  const Mapping mapping = kept->second;
  kept_bytes_ -= mapping.size;
  kept_.erase(kept);
  by_size_.erase(last);
  return mapping;
}

LargeBlocks::Mapping LargeBlocks::map_new(std::size_t size) {
  const std::size_t most = std::max(most_used_, used_bytes_ + size);
  unmap_all_but(most + most / kShareBeyond + kBytesBeyond - used_bytes_ - size);
  const auto map = [size] { return mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); };
  void* begin = map();
  if (begin == MAP_FAILED && kept_bytes_ > 0) {
    unmap_all_but(0);
    begin = map();
  }
  if (begin == MAP_FAILED) return {};
  // Blocks that all began at a page's begin would fight for the same places in the cache.
  next_offset_ = (next_offset_ + 64) % kPage;
  return {static_cast<char*>(begin), size, next_offset_, 0};
}

std::size_t LargeBlocks::give_back(void* block) {
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(block);
  if (found == used_.end()) return 0;
  const Mapping mapping = found->second;
  used_.erase(found);
  used_bytes_ -= mapping.size;
  kept_bytes_ += mapping.size;
  kept_.emplace(next_age_, mapping);
  by_size_.emplace(mapping.size, next_age_);
  ++next_age_;
  return mapping.asked;
}

void LargeBlocks::unmap_all_but(std::size_t bytes) {
  while (kept_bytes_ > bytes) {
    const auto oldest = kept_.begin();
    munmap(oldest->second.begin, oldest->second.size);
    kept_bytes_ -= oldest->second.size;
    by_size_.erase({oldest->second.size, oldest->first});
    kept_.erase(oldest);
  }
}

void LargeBlocks::trim() {
  const std::lock_guard lock(mutex_);
  unmap_all_but(0);
  most_used_ = used_bytes_;
}

std::int64_t LargeBlocks::bytes_in_use() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int64_t>(used_bytes_);
}

std::int64_t LargeBlocks::bytes_kept() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int64_t>(kept_bytes_);
}

}  // namespace hesspect
