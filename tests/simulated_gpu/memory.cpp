#include "memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace simulated_gpu {
namespace {

constexpr std::size_t kAllBytes = kMostDevices * kDeviceBytes;
constexpr std::size_t kAlignment = 4096;

char* reserve(int protection) {
  void* const at = mmap(nullptr, kAllBytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at != MAP_FAILED) return static_cast<char*>(at);
  std::perror("simulated GPU: no address space for its memory");
  std::abort();
}

struct Space {
  char* device = reserve(PROT_NONE);
  char* alias = reserve(PROT_READ | PROT_WRITE);
  std::map<std::size_t, std::size_t> blocks;  // bytes by offset
  std::map<const char*, std::size_t> on_host;
};

Space& space() {
  static Space& all = *new Space;  // for as long as any thread runs
  return all;
}

bool is_within(const void* address, const char* begin) {
  const auto* const at = static_cast<const char*>(address);
  return at >= begin && at < begin + kAllBytes;
}

std::size_t rounded_up(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

bool is_of_device(const void* address) { return is_within(address, space().device); }

bool is_alias(const void* address) { return is_within(address, space().alias); }

int device_of(const void* address) {
  return static_cast<int>((static_cast<const char*>(address) - space().device) /
                          static_cast<std::ptrdiff_t>(kDeviceBytes));
}

void* host_alias(const void* address) {
  if (!is_of_device(address)) return const_cast<void*>(address);
  return space().alias + (static_cast<const char*>(address) - space().device);
}

void* allocate(int device, std::size_t bytes) {
  const std::size_t size = rounded_up(bytes), end = (static_cast<std::size_t>(device) + 1) * kDeviceBytes;
  std::size_t at = static_cast<std::size_t>(device) * kDeviceBytes;
  for (const auto& [begin, length] : space().blocks) {
    if (begin + length <= at) continue;
    if (begin >= at + size) break;
    at = begin + length;
  }
  if (at + size > end) return nullptr;
  space().blocks[at] = size;
  std::memset(space().alias + at, 0xff, size);  // NaN, -1
  return space().device + at;
}

bool release(void* address) {
  const auto found = space().blocks.find(static_cast<std::size_t>(static_cast<char*>(address) - space().device));
  if (!is_of_device(address) || found == space().blocks.end()) return false;
  madvise(space().alias + found->first, found->second, MADV_DONTNEED);
  space().blocks.erase(found);
  return true;
}

bool is_allocated(const void* address, std::size_t bytes) {
  const auto at = static_cast<std::size_t>(static_cast<const char*>(address) - space().device);
  auto after = space().blocks.upper_bound(at);
  if (after == space().blocks.begin()) return false;
  --after;
  return at + bytes <= after->first + after->second;
}

std::size_t free_bytes(int device) {
  std::size_t used = 0;
  for (const auto& [begin, length] : space().blocks)
    if (begin / kDeviceBytes == static_cast<std::size_t>(device)) used += length;
  return kDeviceBytes - used;
}

void* allocate_on_host(std::size_t bytes) {
  const std::size_t size = rounded_up(bytes == 0 ? 1 : bytes);
  char* const at = static_cast<char*>(std::aligned_alloc(kAlignment, size));
  if (at != nullptr) space().on_host[at] = size;
  return at;
}

bool release_on_host(void* address) {
  if (space().on_host.erase(static_cast<char*>(address)) == 0) return false;
  std::free(address);
  return true;
}

bool is_page_locked(const void* address) {
  const auto* const at = static_cast<const char*>(address);
  auto after = space().on_host.upper_bound(at);
  if (after == space().on_host.begin()) return false;
  --after;
  return at < after->first + after->second;
}

}  // namespace simulated_gpu
