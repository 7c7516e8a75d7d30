#include "failure.h"

#include <chrono>
#include <exception>
#include <thread>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/timer.h"

namespace hesspect {

Failure current_failure() {
  // `agree` knows every kind of exception that can come up, LibTorch's too; alone it only sorts them.
  LocalCommunicator alone;
  try {
    agree(alone, [] { throw; });
  } catch (const Error& error) {
    return {static_cast<int>(error.exit_code()), error.what()};
  }
  return {static_cast<int>(ExitCode::kInternal), "an unknown exception"};
}

FailureMeeting::FailureMeeting() {
  int size = 1;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm_);
  MPI_Comm_size(comm_, &size);
  codes_.resize(static_cast<std::size_t>(size));
}

FailureMeeting::FailureMeeting(int color) {
  int size = 1;
  MPI_Comm_split(MPI_COMM_WORLD, color, 0, &comm_);
  MPI_Comm_size(comm_, &size);
  codes_.resize(static_cast<std::size_t>(size));
}

bool FailureMeeting::all_failed(int& exit_code, double at_most_s) {
  if (request_ == MPI_REQUEST_NULL) {
    mine_ = exit_code;
    MPI_Iallgather(&mine_, 1, MPI_INT, codes_.data(), 1, MPI_INT, comm_, &request_);
  }
  const Timer timer;
  for (int done = 0;;) {
    if (MPI_Test(&request_, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
    if (done != 0) break;
    if (timer.elapsed_s() > at_most_s) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  exit_code = codes_.front();
  return true;
}

}  // namespace hesspect
