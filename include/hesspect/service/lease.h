// That a service lives, as others see it: by its process where they share a host, else by a file that it touches.
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace hesspect {

/// Keeps the file `lease` in the service's folder fresh, by a thread.
///
/// Its age is judged by the file server's clock alone: by how much older it is than a file that was touched just now.
/// Where it is of this host, this start of it and the same name space of processes, the clock does not count: the
/// process is there or not, and one that stands still keeps what it has.
class Lease {
 public:
  static constexpr double kTouchEvery_s = 5, kLostAfter_s = 60;

  /// Makes the folder, with the lease in it from its first moment. @throws InputError
  /// @param each  called about once a second by the lease's thread
  Lease(const std::filesystem::path& folder, std::function<void()> each);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  /// Whether the service that has made another folder has gone. Touches this lease to know the time.
  bool is_abandoned(const std::filesystem::path& other) const;
  /// Whether this host has been started anew since a service made that folder here. False where that is not known.
  static bool host_went(const std::filesystem::path& other);

 private:
  void keep();
  bool touch() const;

  std::filesystem::path folder_;
  std::function<void()> each_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false;  // under mutex_
  std::thread thread_;
};

}  // namespace hesspect
