#include "hesspect/series/folder_watch.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <thread>
#include <utility>

namespace hesspect {

bool is_on_network(const std::filesystem::path& folder) {
  // Of statfs(2): NFS, SMB, SMB2, CIFS, FUSE, Ceph, Lustre, GPFS, BeeGFS, 9p, AFS, OrangeFS.
  static constexpr std::array<std::uint32_t, 12> kNetwork = {0x6969,     0x517B,     0xFE534D42, 0xFF534D42,
                                                             0x65735546, 0x00C36400, 0x0BD00BD0, 0x47504653,
                                                             0x19830326, 0x01021997, 0x5346414F, 0x20030528};
  struct statfs found {};
  if (statfs(folder.c_str(), &found) != 0) return true;
  return std::ranges::find(kNetwork, static_cast<std::uint32_t>(found.f_type)) != kNetwork.end();
}

FolderWatch::FolderWatch(const std::vector<std::filesystem::path>& folders, bool polling_alone) {
  if (polling_alone) return;
  fd_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd_ < 0) return;
  for (const std::filesystem::path& folder : folders) {
    if (is_on_network(folder)) continue;
    const int number =
        inotify_add_watch(fd_, folder.c_str(), IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM);
    if (number >= 0) watches_.push_back({number, folder});
  }
}

FolderWatch::~FolderWatch() {
  if (fd_ >= 0) close(fd_);
}

bool FolderWatch::wait(double most_s) {
  if (!by_kernel()) {
    std::this_thread::sleep_for(std::chrono::duration<double>(most_s));
    return false;
  }
  pollfd one{fd_, POLLIN, 0};
  poll(&one, 1, static_cast<int>(std::ceil(1e3 * most_s)));
  return read_events();
}

/// @return whether there were any
bool FolderWatch::read_events() {
  bool any = false;
  alignas(inotify_event) std::array<char, 65536> buffer;
  for (ssize_t bytes; (bytes = read(fd_, buffer.data(), buffer.size())) > 0;) {
    any = true;
    for (const char* at = buffer.data(); at < buffer.data() + bytes;) {
      const auto* const event = reinterpret_cast<const inotify_event*>(at);
      at += sizeof(inotify_event) + event->len;
      if ((event->mask & IN_Q_OVERFLOW) != 0) overflow_ = true;
      if ((event->mask & (IN_DELETE | IN_MOVED_FROM)) == 0 || event->len == 0) continue;
      const auto watch = std::ranges::find(watches_, event->wd, &Watch::number);
      if (watch != watches_.end()) gone_.push_back((watch->folder / event->name).lexically_normal());
    }
  }
  return any;
}

std::vector<std::filesystem::path> FolderWatch::take_gone() {
  if (by_kernel()) read_events();
  return std::exchange(gone_, {});
}

bool FolderWatch::take_overflow() { return std::exchange(overflow_, false); }

}  // namespace hesspect
