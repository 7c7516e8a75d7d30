#include "process.h"

#include <ATen/Parallel.h>
#include <malloc.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "hesspect/core/host.h"

namespace hesspect {

void tune_allocator() {
  // A threshold for mmap can't be set above 32 MiB, and activations are larger: no mmap at all.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
}

std::string utc_time() {
  const std::time_t now = std::time(nullptr);
  std::tm fields{};
  gmtime_r(&now, &fields);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &fields);
  return text;
}

std::int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

std::int64_t resident_memory_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
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
