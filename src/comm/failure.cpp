#include "hesspect/comm/failure.h"

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

FailureMeeting::FailureMeeting(int color) {
  int size = 1;
  MPI_Comm_split(MPI_COMM_WORLD, color, 0, &comm_);
  MPI_Comm_size(comm_, &size);
  message_->codes.resize(static_cast<std::size_t>(size));
}

FailureMeeting::~FailureMeeting() {
  if (message_->request != MPI_REQUEST_NULL)
    message_.release();
  else if (std::uncaught_exceptions() == 0)  // else others may be elsewhere, and MPI_Finalize cleans up
    MPI_Comm_free(&comm_);
}

bool FailureMeeting::all_failed(int& exit_code, double at_most_s) {
  if (message_->request == MPI_REQUEST_NULL) {
    message_->mine = exit_code;
    MPI_Iallgather(&message_->mine, 1, MPI_INT, message_->codes.data(), 1, MPI_INT, comm_, &message_->request);
  }
  const Timer timer;
  for (int done = 0;;) {
    if (MPI_Test(&message_->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
    if (done != 0) break;
    if (timer.elapsed_s() > at_most_s) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  exit_code = message_->codes.front();
  return true;
}

}  // namespace hesspect
