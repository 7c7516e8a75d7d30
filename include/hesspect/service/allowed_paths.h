// Which files jobs may read and write.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "hesspect/config/options.h"
#include "hesspect/service/spool.h"

namespace hesspect {

class AllowedPaths {
 public:
  /// @param allow  folders; none: the spool and the working directory
  /// @throws InputError: one that is no folder
  AllowedPaths(const std::vector<std::string>& allow, const Spool& spool);

  /// Makes every path of a job absolute and without links, and looks where it lies. What the service itself chooses (a
  /// result or checkpoint that the job does not name) is set afterwards.
  /// @throws InputError: an input that is not there; UsageError: one that lies outside; an output that lies outside, in
  ///         the spool's own folders, or is a symbolic link
  void confine(RunConfig& config) const;

  const std::vector<std::filesystem::path>& folders() const { return folders_; }

 private:
  std::string input(const std::string& option, const std::string& path) const;
  std::string output(const std::string& option, const std::string& path) const;
  void require_inside(const std::string& option, const std::string& path, const std::filesystem::path& resolved) const;

  std::vector<std::filesystem::path> folders_, own_;
};

}  // namespace hesspect
