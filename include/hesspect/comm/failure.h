// How a run ends when something failed: with one line and one exit code, and with no rank left waiting.
#pragma once

#include <mpi.h>

#include <memory>
#include <string>
#include <vector>

namespace hesspect {

/// What to say and which code to end with.
struct Failure {
  int exit_code = 0;
  std::string message;
};

/// The exception that is being handled, as a Failure.
Failure current_failure();

/// How long a rank that failed waits for the others to fail in the same way.
inline constexpr double kMeetAtMost_s = 5;

/// Where failing ranks meet. Most errors are agreed on, so that every rank fails at the same place: then rank 0 speaks
/// for all and they end in order. An error that met one rank alone leaves the others in a collective: they don't come,
/// and the rank has to abort the program.
class FailureMeeting {
 public:
  /// Collective over all ranks of MPI: those of one colour meet.
  explicit FailureMeeting(int color = 0);
  /// A message that is still under way keeps its memory.
  ~FailureMeeting();
  FailureMeeting(const FailureMeeting&) = delete;
  FailureMeeting& operator=(const FailureMeeting&) = delete;

  /// Waits for the other ranks to fail too, at most so long.
  /// @return true if all came; `exit_code` is then rank 0's on every rank
  bool all_failed(int& exit_code, double at_most_s);

 private:
  struct Message {
    MPI_Request request = MPI_REQUEST_NULL;
    int mine = 0;
    std::vector<int> codes;
  };
  MPI_Comm comm_ = MPI_COMM_NULL;
  std::unique_ptr<Message> message_ = std::make_unique<Message>();
};

}  // namespace hesspect
