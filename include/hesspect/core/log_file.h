// What a part of the process's work says, in a file of its own.
#pragma once

#include <filesystem>

namespace hesspect {

/// While it lives, what is logged goes to the end of a file, each line with its time, and not to stderr; progress is
/// told by lines as where there is no terminal. One at a time. Where the file can't be written, what is said is lost.
class LogFile {
 public:
  explicit LogFile(const std::filesystem::path& file);
  ~LogFile();
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;
};

}  // namespace hesspect
