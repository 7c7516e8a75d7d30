// How much memory this process uses and may still use on the CPU.
#pragma once

#include <cstdint>

namespace hesspect {

/// Bytes that the heap holds in live blocks now (glibc's own count, all arenas).
std::int64_t heap_bytes_in_use();

/// Bytes that could be taken without swapping: /proc/meminfo's MemAvailable, cut to what the cgroup and the
/// limit on the address space (ulimit -v) leave.
std::int64_t available_memory_bytes();

}  // namespace hesspect
