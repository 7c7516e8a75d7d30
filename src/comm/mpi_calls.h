// What calls of MPI have in common: how they fail, and how threads wait for messages. MPI's own waits spin and never
// give up, so these look, sleep and look again.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "hesspect/core/errors.h"

namespace hesspect {

/// @throws CommError naming the call and this rank, unless `rc` is success
inline void check_mpi(int rc, const char* call, int rank) {
  if (rc == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(rc, text, &length);
  throw CommError(call, rank, std::string(call) + " failed on rank " + std::to_string(rank) + ": " + text);
}

/// Sleeps that grow from 20 µs to a longest one.
class Patience {
 public:
  explicit Patience(std::chrono::microseconds longest) : longest_(longest) {}
  void sleep() {
    std::this_thread::sleep_for(next_);
    next_ = std::min(2 * next_, longest_);
  }
  void refresh() { next_ = kFirst; }

 private:
  static constexpr std::chrono::microseconds kFirst{20};
  std::chrono::microseconds longest_, next_ = kFirst;
};

/// True if MPI allows calls from several threads at once.
inline bool mpi_thread_multiple() {
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  return provided == MPI_THREAD_MULTIPLE;
}

}  // namespace hesspect
