// SIGUSR1 and SIGTERM as a wish to stop: the first asks for a checkpoint, a second one ends the process at once.
#pragma once

namespace hesspect {

/// Made first of all in `main`: a signal that comes before ends the process as any would. While it lives the two
/// signals are taken. The second ends the process with exit code 75: what was written completely is on disk. Launchers
/// may deliver one signal twice, so what follows within half a second is the same one.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// From here on the signals do what they do by default.
  void release() const;
  /// One of them has come, to this process.
  bool received() const;
};

}  // namespace hesspect
