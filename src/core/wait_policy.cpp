// A library of its own (libhesspect_wait.so), which the dynamic linker initialises before libgomp because the program
// names it after that: libgomp reads its settings when it is initialised and has no call for this one.
//
// Between parallel regions libgomp's threads spin for 300,000 rounds, about a millisecond, before they sleep. Where
// nothing else runs that is right: with 1,000 rounds a product of a GPT of 1 million parameters takes 1.18 times as
// long on two cores. Where more threads want cores than there are, those that spin keep from running the very thread
// that they wait for: on two cores at a load of nine a product of a small model took 1.8 s, and 0.05 s with 1,000
// rounds.
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace {

constexpr const char* kRounds = "1000";
constexpr double kCrowded = 1.25;  // threads that want to run, over the host's cores

/// Threads of the host that run or could, but for those of this run that have begun. 0 where that can't be told.
int others_that_run() {
  int running = 0;
  if (std::FILE* const file = std::fopen("/proc/loadavg", "r")) {
    if (std::fscanf(file, "%*f %*f %*f %d", &running) != 1) running = 0;
    std::fclose(file);
  }
  const char* const ranks = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
  return running - (ranks == nullptr ? 1 : std::atoi(ranks));
}

[[gnu::constructor]] void wait_asleep_in_a_crowd() {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  cpu_set_t allowed;
  const int own = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  if (others_that_run() + own > kCrowded * static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN)))
    setenv("GOMP_SPINCOUNT", kRounds, /*overwrite=*/0);
}

}  // namespace
