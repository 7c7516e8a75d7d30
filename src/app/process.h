// This process and its host: allocator, threads, memory, names, clock.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"

namespace hesspect {

/// Keeps freed memory for the next product instead of returning it to the kernel at once: with glibc's defaults 41–47 %
/// of a CNN product's CPU time was page faults. LibTorch's large CPU tensors become blocks of their own
/// (core/large_blocks.h).
void tune_allocator();

/// Now, in UTC: "2026-01-31T12:00:00Z".
std::string utc_time();

/// Where the ranks are.
struct Placement {
  std::vector<std::string> hosts;  // of each rank
  int ranks_on_node = 1;           // on this rank's host
  int ranks_on_cores = 1;          // of those, the ranks that may run on the same cores as this one
  int cores = 1;                   // that this rank may run on
};

/// Collective.
Placement find_placement(Communicator& comm);

/// Sets LibTorch's threads: as asked for; else OMP_NUM_THREADS where it is set; else this rank's share of its cores.
/// @return the number
int set_threads(std::int64_t request, const Placement& placement);

}  // namespace hesspect
