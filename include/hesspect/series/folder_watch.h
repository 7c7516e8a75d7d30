// Wakes whoever waits for new files in folders, and remembers what came and went meanwhile.
//
// By inotify where the kernel sees all changes; on network file systems, which others change too, it only sleeps:
// whoever waits looks at the folders anyway.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hesspect {

class FolderWatch {
 public:
  /// Folders that can't be watched are left to looking. @param polling_alone  never inotify
  explicit FolderWatch(const std::vector<std::filesystem::path>& folders, bool polling_alone = false);
  ~FolderWatch();
  FolderWatch(const FolderWatch&) = delete;
  FolderWatch& operator=(const FolderWatch&) = delete;

  /// Returns when something has changed, or after so many seconds. @return whether a change was seen
  bool wait(double most_s);
  /// Paths that have gone since the last call: removed, or renamed away.
  std::vector<std::filesystem::path> take_gone();
  /// Changes came faster than they were taken, and some are not known. Once for each time.
  bool take_overflow();
  /// Whether any folder is watched by inotify.
  bool by_kernel() const { return !watches_.empty(); }

 private:
  bool read_events();

  struct Watch {
    int number;
    std::filesystem::path folder;
  };
  int fd_ = -1;
  std::vector<Watch> watches_;
  std::vector<std::filesystem::path> gone_;
  bool overflow_ = false;
};

/// Whether a folder lies on a file system that other hosts change too: inotify doesn't see those changes.
bool is_on_network(const std::filesystem::path& folder);

}  // namespace hesspect
