#include "hesspect/core/memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>

namespace hesspect::memory_test {
namespace {

/// What available_memory_bytes(sharing) says, in MiB, of a process that may have `limit` bytes of addresses (0: as
/// many as it likes).
int available_mib(rlim_t limit, int sharing) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    const rlimit addresses{limit, limit};
    int mib = -1;
    if (limit == 0 || setrlimit(RLIMIT_AS, &addresses) == 0)
      mib = static_cast<int>(available_memory_bytes(sharing) >> 20);
    _exit(write(ends[1], &mib, sizeof mib) == sizeof mib ? 0 : 1);
  }
  int mib = -1;
  const bool read_whole = read(ends[0], &mib, sizeof mib) == sizeof mib;
  close(ends[0]);
  close(ends[1]);
  waitpid(child, nullptr, 0);
  return read_whole ? mib : -1;
}

TEST(AvailableMemory, IsSharedByTheProcessesOfAHost) {
  const int whole = available_mib(0, 1), a_share = available_mib(0, 1000);
  ASSERT_GT(whole, 64);
  EXPECT_LT(a_share, whole / 100);
  EXPECT_GE(a_share, 0);
}

// Each rank under `ulimit -v` has the limit for itself.
TEST(AvailableMemory, ALimitOnAddressesIsAProcesssOwn) {
  const rlim_t limit = rlim_t{2} << 30;
  const int one = available_mib(limit, 1), of_two = available_mib(limit, 2);
  ASSERT_GT(one, 0);
  if (available_mib(0, 2) < 2048) GTEST_SKIP() << "a host with less memory than the limit of two processes";
  EXPECT_LE(one, 2048);
  EXPECT_NEAR(of_two, one, 16);
}

}  // namespace
}  // namespace hesspect::memory_test
