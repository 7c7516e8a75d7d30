// One run at a time in a folder.
#pragma once

#include <filesystem>
#include <string>

namespace hesspect {

/// The kernel's lock (flock) on a file in the folder: it ends with the process, however that dies. The file says who
/// holds it.
class FolderLock {
 public:
  /// @throws UsageError where another holds it; InputError where the file cannot be made
  FolderLock(const std::filesystem::path& folder, const std::string& name);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace hesspect
