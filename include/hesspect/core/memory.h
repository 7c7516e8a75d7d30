// How much memory this process uses and may still use on the CPU.
#pragma once

#include <cstdint>

namespace hesspect {

/// Bytes that the heap holds in live blocks now (glibc's own count, all arenas), and those of large blocks.
std::int64_t heap_bytes_in_use();
/// Gives what is free in the heap, and large blocks that are kept for reuse, back to the system.
void give_back_unused_memory();

/// Peak resident memory of this process so far, since it began to run this program: getrusage's would be its parent's
/// where that was larger.
std::int64_t peak_memory_bytes();
/// Resident memory of this process now.
std::int64_t resident_memory_bytes();

/// Bytes that this process could take without swapping: its share of /proc/meminfo's MemAvailable, cut to what the
/// cgroup leaves, where so many processes share both; and no more than its own limit on the address space (ulimit -v)
/// leaves, which nobody shares.
std::int64_t available_memory_bytes(int sharing = 1);

}  // namespace hesspect
