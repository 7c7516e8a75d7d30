// One series at a time on an output.
#pragma once

#include <filesystem>

namespace hesspect {

/// The kernel's lock (flock) on a file beside the output: it ends with the process, however that dies. The file says
/// who holds it, and stays.
class SeriesLock {
 public:
  /// @throws UsageError where another series holds it; InputError where the file can't be made
  explicit SeriesLock(const std::filesystem::path& output);
  ~SeriesLock();
  SeriesLock(const SeriesLock&) = delete;
  SeriesLock& operator=(const SeriesLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace hesspect
