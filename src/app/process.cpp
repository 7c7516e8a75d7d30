#include "process.h"

#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "hesspect/core/host.h"
#include "hesspect/core/large_blocks.h"

namespace hesspect {
namespace {

/// LibTorch's CPU tensors, the large ones in blocks of their own.
class CpuAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes < LargeBlocks::kSmallest) return usual()->allocate(bytes);
    void* const block = LargeBlocks::of_process().take(bytes);
    if (block == nullptr) return usual()->allocate(bytes);  // which says in its own way that there is no more
    report(block, static_cast<std::int64_t>(bytes));
    return {block, block, &release, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }

  static c10::Allocator* usual() {
    static c10::Allocator* const allocator = c10::GetDefaultCPUAllocator();
    return allocator;
  }

 private:
  static void release(void* block) {
    if (block == nullptr) return;
    const std::size_t bytes = LargeBlocks::of_process().give_back(block);
    if (bytes == 0) return usual()->raw_deleter()(block);
    report(block, -static_cast<std::int64_t>(bytes));
  }

  /// Tells those who count, as curvature's AllocationMeter does.
  static void report(void* block, std::int64_t bytes) {
    if (c10::memoryProfilingEnabled())
      c10::reportMemoryUsageToProfiler(block, bytes, LargeBlocks::of_process().bytes_in_use(), 0, at::kCPU);
  }
};

}  // namespace

void tune_allocator() {
  // A threshold for mmap can't be set above 32 MiB, and activations are larger: no mmap at all.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  static auto* const allocator = new CpuAllocator;  // lives as long as any tensor
  CpuAllocator::usual();
  c10::SetCPUAllocator(allocator, /*priority=*/1);
}

std::string utc_time() {
  const std::time_t now = std::time(nullptr);
  std::tm fields{};
  gmtime_r(&now, &fields);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &fields);
  return text;
}

Placement find_placement(Communicator& comm) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  Placement placement;
  std::string mask;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) {
    placement.cores = std::max(1, CPU_COUNT(&cores));
    for (int c = 0; c < CPU_SETSIZE; ++c) mask += CPU_ISSET(c, &cores) ? '1' : '0';
  }
  const std::string host = host_name();
  const std::string here = host + '\n' + mask;
  placement.ranks_on_node = placement.ranks_on_cores = 0;
  for (const std::string& there : comm.all_gather_bytes(here)) {
    placement.hosts.push_back(there.substr(0, there.find('\n')));
    placement.ranks_on_node += placement.hosts.back() == host ? 1 : 0;
    placement.ranks_on_cores += there == here ? 1 : 0;
  }
  return placement;
}

int set_threads(std::int64_t request, const Placement& placement) {
  if (request > 0) {
    at::set_num_threads(static_cast<int>(request));
  } else if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    at::set_num_threads(std::max(1, placement.cores / placement.ranks_on_cores));
  }
  return at::get_num_threads();
}

}  // namespace hesspect
