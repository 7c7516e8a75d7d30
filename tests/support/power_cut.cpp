// Laid before the C library by LD_PRELOAD: a disk that keeps nothing but what was synced. What fsync and fdatasync
// promise is written down in the folder POWER_CUT_SHADOW, and power_cut.py makes from that what a power cut at this
// moment would have left of POWER_CUT_ROOT, at worst.
//
//   SHADOW/data/DEVICE-INODE-BIRTH     the content of a file when it was synced last
//   SHADOW/folders/DEVICE-INODE-BIRTH  the names in a folder when it was synced last, a line "KIND ID NAME" each
//   SHADOW/moves/DEVICE-INODE-BIRTH    the renames of a file or folder since one of them was durable, as one: "FOLDER
//   NAME
//                                      FOLDER NAME", from and to, with tabs
//
// A rename is whole or not at all, as on every file system with a journal: where the folder that a file has left, or
// the one that it has come into, is synced, then both are, as far as that file goes. Nothing else is kept that was not
// asked for: neither content because of a name, nor a name because of content, nor an order of anything.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

namespace {

const char* variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// A file as itself: its number may be given to another one, but not with the same birth.
std::string id_of(int fd, const char* path, unsigned& mode) {
  struct statx file {};
  if (statx(fd, path, AT_SYMLINK_NOFOLLOW | (*path == '\0' ? AT_EMPTY_PATH : 0), STATX_BASIC_STATS | STATX_BTIME,
            &file) != 0)
    return "";
  mode = file.stx_mode;
  return std::to_string(makedev(file.stx_dev_major, file.stx_dev_minor)) + "-" + std::to_string(file.stx_ino) + "-" +
         std::to_string(file.stx_btime.tv_sec) + "." + std::to_string(file.stx_btime.tv_nsec);
}

std::string shadow(const char* what, const std::string& id) {
  return std::string(variable("POWER_CUT_SHADOW")) + "/" + what + "/" + id;
}

bool is_below_root(const std::string& path) {
  const std::string root = variable("POWER_CUT_ROOT");
  return !root.empty() && path.compare(0, root.size(), root) == 0 &&
         (path.size() == root.size() || path[root.size()] == '/');
}

std::string path_of(int fd) {
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = readlink(link.c_str(), path, sizeof path);
  return size > 0 ? std::string(path, static_cast<std::size_t>(size)) : "";
}

/// Under one lock for all processes, which goes with the process that holds it.
class Lock {
 public:
  Lock()
      : fd_(::open((std::string(variable("POWER_CUT_SHADOW")) + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    while (fd_ >= 0 && ::flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~Lock() {
    if (fd_ >= 0) ::close(fd_);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int fd_;
};

using Rename = int (*)(const char*, const char*);
Rename real_rename() {
  static const auto real = reinterpret_cast<Rename>(dlsym(RTLD_NEXT, "rename"));
  return real;
}

/// Whole, whenever the process is killed.
void put(const std::string& file, const std::string& content) {
  const std::string temporary = file + ".new";
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return;
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t count = ::write(fd, content.data() + done, content.size() - done);
    if (count <= 0 && errno != EINTR) break;
    if (count > 0) done += static_cast<std::size_t>(count);
  }
  ::close(fd);
  real_rename()(temporary.c_str(), file.c_str());
}

std::string content_of(const std::string& file) {
  std::string content;
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return content;
  char bytes[1 << 16];
  for (ssize_t count = 0; (count = ::read(fd, bytes, sizeof bytes)) != 0;) {
    if (count < 0 && errno != EINTR) break;
    if (count > 0) content.append(bytes, static_cast<std::size_t>(count));
  }
  ::close(fd);
  return content;
}

/// Names and, before each, its kind and id: "f 65024-12-1700000000.5".
using Listing = std::map<std::string, std::string>;

Listing listing_from(const std::string& text) {
  Listing names;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin), name = text.find(' ', begin + 2) + 1;
    names[text.substr(name, end - name)] = text.substr(begin, name - 1 - begin);
    begin = end + 1;
  }
  return names;
}

std::string text_of(const Listing& names) {
  std::string text;
  for (const auto& [name, what] : names) text += what + " " + name + "\n";
  return text;
}

std::string entry_of(int folder, const char* name) {
  unsigned mode = 0;
  const std::string id = id_of(folder, name, mode);
  if (id.empty() || !(S_ISREG(mode) || S_ISDIR(mode))) return "";
  return (S_ISDIR(mode) ? "d " : "f ") + id;
}

Listing listing_of(const std::string& folder) {
  Listing names;
  DIR* const open = ::opendir(folder.c_str());
  if (open == nullptr) return names;
  while (const dirent* const entry = ::readdir(open)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    const std::string what = entry_of(::dirfd(open), name.c_str());
    if (!what.empty()) names[name] = what;
  }
  ::closedir(open);
  return names;
}

void change(const std::string& folder, const std::string& name, const std::string& what, bool is_there) {
  const std::string file = shadow("folders", folder);
  Listing names = listing_from(content_of(file));
  if (is_there) {
    names[name] = what;
  } else {
    const auto found = names.find(name);
    if (found == names.end() || found->second != what) return;
    names.erase(found);
  }
  put(file, text_of(names));
}

void keep_folder(const std::string& folder, const std::string& path) {
  const Listing before = listing_from(content_of(shadow("folders", folder))), now = listing_of(path);
  // Renames out of this folder: where they went to is durable with it.
  for (const auto& [name, what] : before) {
    const auto same = now.find(name);
    if (same != now.end() && same->second == what) continue;
    const std::string moved = content_of(shadow("moves", what.substr(2)));
    const auto first = moved.find('\t'), second = moved.find('\t', first + 1), third = moved.find('\t', second + 1);
    if (third == std::string::npos) continue;
    const std::string to = moved.substr(second + 1, third - second - 1);
    if (to != folder) change(to, moved.substr(third + 1), what, true);
  }
  put(shadow("folders", folder), text_of(now));
  // Renames into it: what they have left is durable with it.
  for (const auto& [name, what] : now) {
    const auto same = before.find(name);
    if (same != before.end() && same->second == what) continue;
    const std::string moved = content_of(shadow("moves", what.substr(2)));
    const auto first = moved.find('\t'), second = moved.find('\t', first + 1);
    if (second == std::string::npos) continue;
    const std::string from = moved.substr(0, first);
    if (from != folder) change(from, moved.substr(first + 1, second - first - 1), what, false);
  }
}

int keep(int fd) {
  const int error = errno;
  const std::string path = path_of(fd);
  if (!is_below_root(path)) return 0;
  unsigned mode = 0;
  const std::string id = id_of(fd, "", mode);
  if (id.empty()) return -1;
  const Lock lock;
  if (S_ISDIR(mode))
    keep_folder(id, path);
  else if (S_ISREG(mode))
    put(shadow("data", id), content_of("/proc/self/fd/" + std::to_string(fd)));
  errno = error;
  return 0;
}

std::string folder_and_name(const char* path) {
  const std::string text = path;
  const auto slash = text.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : text.substr(0, slash);
  unsigned mode = 0;
  return id_of(AT_FDCWD, folder.c_str(), mode) + "\t" + (slash == std::string::npos ? text : text.substr(slash + 1));
}

/// Where a file lies on the disk, "FOLDER NAME", that has come to `now`: where it was before the renames that are not
/// durable.
std::string durable_place(const std::string& id, const std::string& now) {
  const std::string moved = content_of(shadow("moves", id));
  const auto first = moved.find('\t'), second = moved.find('\t', first + 1);
  if (second == std::string::npos || moved.substr(second + 1) != now) return now;
  const auto tab = now.find('\t');
  const Listing names = listing_from(content_of(shadow("folders", now.substr(0, tab))));
  const auto found = names.find(now.substr(tab + 1));
  const bool is_durable = found != names.end() && found->second.substr(2) == id;
  return is_durable ? now : moved.substr(0, second);
}

}  // namespace

/// For power_cut.py. @return 0, and the id in `id`
extern "C" int power_cut_id(const char* path, char* id, std::size_t size) {
  unsigned mode = 0;
  const std::string found = id_of(AT_FDCWD, path, mode);
  return !found.empty() && std::snprintf(id, size, "%s", found.c_str()) < static_cast<int>(size) ? 0 : -1;
}

extern "C" int fsync(int fd) { return keep(fd); }
extern "C" int fdatasync(int fd) { return keep(fd); }

extern "C" int rename(const char* from, const char* to) {
  char* const whole = ::realpath(from, nullptr);
  const bool is_ours = whole != nullptr && is_below_root(whole);
  std::free(whole);
  if (!is_ours) return real_rename()(from, to);
  const Lock lock;
  unsigned mode = 0;
  const std::string id = id_of(AT_FDCWD, from, mode);
  const std::string moved = durable_place(id, folder_and_name(from)) + "\t" + folder_and_name(to);
  const int result = real_rename()(from, to);
  const int error = errno;
  if (result == 0) put(shadow("moves", id), moved);
  errno = error;
  return result;
}
