#include "hesspect/core/stop_signal.h"

#include <unistd.h>
#include <csignal>
#include <ctime>

#include <atomic>
#include <cstdint>

#include "hesspect/core/errors.h"
#include "hesspect/core/stop_request.h"

namespace hesspect {
namespace {

constexpr std::int64_t kSameSignal_ns = 500'000'000;

// A handler has no arguments of its own: what it knows is process-wide.
std::atomic<std::int64_t> first_signal_ns{0};
std::atomic<bool> is_stop_requested = false;
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

extern "C" void take_stop_signal(int) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t now_ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  std::int64_t first = 0;
  if (first_signal_ns.compare_exchange_strong(first, now_ns)) return;
  if (now_ns - first > kSameSignal_ns) _exit(static_cast<int>(ExitCode::kResubmit));
}

}  // namespace

StopSignal::StopSignal() {
  struct sigaction action {};
  action.sa_handler = take_stop_signal;
  action.sa_flags = SA_RESTART;  // a system call that was under way, in MPI or a file, goes on
  sigemptyset(&action.sa_mask);
  sigaction(SIGUSR1, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

StopSignal::~StopSignal() {
  // What comes now finds the run ending by itself: a wish to stop shall not kill it in the middle of that.
  signal(SIGUSR1, SIG_IGN);
  signal(SIGTERM, SIG_DFL);
}

void StopSignal::release() const {
  signal(SIGUSR1, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

bool StopSignal::received() const {
  return first_signal_ns.load(std::memory_order_relaxed) != 0 || is_stop_requested.load(std::memory_order_relaxed);
}

void request_stop() { is_stop_requested = true; }
void withdraw_stop_request() { is_stop_requested = false; }

}  // namespace hesspect
