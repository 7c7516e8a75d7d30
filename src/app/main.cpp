// hesspect: curvature spectra of large trained networks. This file alone catches errors; program.h has the rest.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "hesspect/comm/end_job.h"
#include "hesspect/comm/failure.h"
#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/mpi_session.h"
#include "hesspect/core/host.h"
#include "hesspect/core/log.h"
#include "hesspect/core/stop_signal.h"
#include "hesspect/front/front.h"
#include "process.h"
#include "program.h"
#include "python_commands.h"

namespace {

int run(const hesspect::MpiSession& session, const std::vector<std::string>& argv, const hesspect::StopSignal& signal,
        hesspect::FailureMeeting& meeting) {
  using namespace hesspect;
  set_log_level(session.rank() == 0 ? LogLevel::kInfo : LogLevel::kQuiet);
  try {
    return run_program(argv, hesspect_environment(), signal, *make_host_communicator());
  } catch (...) {
    Failure failure = current_failure();
    if (meeting.all_failed(failure.exit_code, kMeetAtMost_s)) {
      if (session.rank() == 0) log_error(failure.message);
      return failure.exit_code;
    }
    log_error("rank " + std::to_string(session.rank()) + " on " + host_name() + ": " + failure.message);
    abort_job(failure.exit_code);
  }
}

int run_process(int argc, char** argv) {
  const hesspect::StopSignal stop_signal;
  hesspect::tune_allocator();
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit then fails the write, which is reported, instead of the process
  try {
    const std::vector<std::string> arguments(argv, argv + argc);
    const hesspect::MpiSession session(argc, argv);
    hesspect::FailureMeeting meeting;
    const int code = run(session, arguments, stop_signal, meeting);
    hesspect::end_job(code, session.rank());
    return code;
  } catch (...) {
    const hesspect::Failure failure = hesspect::current_failure();
    hesspect::log_error(failure.message);
    return failure.exit_code;
  }
}

/// Ends the process without taking LibTorch apart, of which nobody would see anything but the time. All objects of our
/// own are gone by now, MPI is finalised, and files are closed.
int leave(int code) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which have their say at the usual end
  if (std::fflush(nullptr) == 0) std::_Exit(code);
#endif
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  int code = hesspect::go_over_to_python(argc, argv);
  if (code < 0) code = hesspect::run_front(argc, argv);
  return leave(code >= 0 ? code : run_process(argc, argv));
}
