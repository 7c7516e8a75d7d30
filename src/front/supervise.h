// A launcher as a child process: its lines looked through, signals passed on in the way that its ranks understand.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace hesspect {

/// A launcher's command line, or a single rank's, and variables that its environment has besides.
struct LauncherCommand {
  std::vector<std::string> words;
  std::map<std::string, std::string> variables;
  int end_signal = 0;         // what ends it and its ranks at once
  bool has_terminal = false;  // writes to the terminal itself: its lines are not looked through
};

struct LauncherEnd {
  int exit_code = 0;        // 128 + the signal where one ended it
  bool is_by_user = false;  // somebody has asked it to stop, or ended it
};

/// Starts it and waits for its end. SIGTERM, SIGUSR1 and a first SIGINT ask the ranks to save and stop: they reach them
/// as one SIGUSR1, for a launcher answers the other two by killing the ranks. A SIGINT after that, and SIGQUIT, end
/// them. If this process is killed, the ranks are asked to save and stop too.
/// Errors that the ranks have not told are told.
/// @throws InputError where it can't be started
LauncherEnd supervise(const LauncherCommand& command);

}  // namespace hesspect
