// What people should see of the stderr of a launcher and its ranks: the ranks' lines, and of the launcher's own remarks
// those that nobody else has made.
//
// Open MPI puts its remarks into frames of dashes, Slurm writes "srun: error: …". Where a rank has said in one line
// what was wrong, they add nothing. Where none has (a rank was killed, a host can't be reached, there is no slot) they
// are all there is, and become the one line.
#pragma once

#include <string>
#include <vector>

namespace hesspect {

class LauncherLines {
 public:
  /// Takes a line without its end. @return the lines to print for it
  std::vector<std::string> take(const std::string& line);
  /// The output has ended, and so has the launcher. @return the lines to print: where no rank has said why the exit
  /// code is that of a failure, one that does
  std::vector<std::string> finish(int exit_code);

 private:
  std::vector<std::string> take_rank_line(const std::string& line);
  void end_frame();
  std::vector<std::string> take_warnings();
  std::string cause() const;

  bool in_frame_ = false;
  bool error_seen_ = false;
  std::vector<std::string> frame_;    // lines of the one that is open
  std::vector<std::string> pending_;  // remarks that may prove to be the cause, each as one line
  std::string specific_, general_;    // remarks about the end: with a cause, and "exited with non-zero status"
};

}  // namespace hesspect
