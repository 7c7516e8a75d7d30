// Wall-clock timing.
#pragma once

#include <chrono>

namespace hesspect {

/// Seconds since it was made or last reset, by a monotonic clock.
class Timer {
 public:
  double elapsed_s() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void reset() { start_ = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace hesspect
