#include "hesspect/core/memory.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "hesspect/core/large_blocks.h"

namespace hesspect {
namespace {

/// A number of kibibytes in /proc/self/status, in bytes; 0 where there is none of this name.
std::int64_t status_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  std::string key, rest;
  while (status >> key) {
    std::int64_t kib = 0;
    if (key == name + ":" && status >> kib) return kib * 1024;
    std::getline(status, rest);
  }
  return 0;
}

/// The number in a one-line file such as a cgroup's memory.max; -1 if there is none ("max", no such file).
std::int64_t number_in(const char* path) {
  std::ifstream file(path);
  std::int64_t value = -1;
  return file >> value ? value : -1;
}

}  // namespace

std::int64_t heap_bytes_in_use() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<std::int64_t>(info.uordblks + info.hblkhd) + LargeBlocks::of_process().bytes_in_use();
}

void give_back_unused_memory() {
  malloc_trim(0);
  LargeBlocks::of_process().trim();
}

std::int64_t peak_memory_bytes() { return status_bytes("VmHWM"); }

std::int64_t resident_memory_bytes() { return status_bytes("VmRSS"); }

std::int64_t available_memory_bytes(int sharing) {
  std::int64_t available = std::numeric_limits<std::int64_t>::max();
  std::ifstream meminfo("/proc/meminfo");
  std::string key, unit;
  std::int64_t kib = 0;
  while (meminfo >> key >> kib) {
    std::getline(meminfo, unit);
    if (key == "MemAvailable:") available = kib * 1024;
  }
  const std::int64_t limit = number_in("/sys/fs/cgroup/memory.max");
  const std::int64_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0) available = std::min(available, std::max<std::int64_t>(0, limit - used));
  available /= std::max(1, sharing);
  rlimit address_space{};
  std::int64_t pages = 0;
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY &&
      std::ifstream("/proc/self/statm") >> pages) {
    const std::int64_t mapped = pages * sysconf(_SC_PAGESIZE);
    available =
        std::min(available, std::max<std::int64_t>(0, static_cast<std::int64_t>(address_space.rlim_cur) - mapped));
  }
  return available;
}

}  // namespace hesspect
