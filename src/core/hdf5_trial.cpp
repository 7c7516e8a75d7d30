#include "hesspect/core/hdf5_trial.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"

extern char** environ;

namespace hesspect {
namespace {

constexpr const char* kProgram = "hesspect-try-hdf5";
constexpr std::uintmax_t kFirstSignature = 512;  // a user block before it has this size, or twice that and so on
constexpr std::array<char, 8> kSignature{'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};

bool has_hdf5_signature(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return false;  // none, or no regular file: to open a FIFO would wait for its writer
  std::ifstream in(path, std::ios::binary);
  for (std::uintmax_t at = 0; at + kSignature.size() <= size; at = at == 0 ? kFirstSignature : 2 * at) {
    std::array<char, kSignature.size()> bytes{};
    in.seekg(static_cast<std::streamoff>(at));
    if (!in.read(bytes.data(), bytes.size())) return false;
    if (bytes == kSignature) return true;
  }
  return false;
}

/// Signals are as a fresh process has them, and nothing that the libraries print reaches the terminal.
class SpawnSettings {
 public:
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&files_);
    ::posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&files_, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addopen(&files_, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~SpawnSettings() {
    ::posix_spawnattr_destroy(&attributes_);
    ::posix_spawn_file_actions_destroy(&files_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  const posix_spawn_file_actions_t* files() const { return &files_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t files_{};
  posix_spawnattr_t attributes_{};
};

void warn_once(const std::string& why) {
  static bool warned = false;
  if (!std::exchange(warned, true))
    log_warning(std::string(kProgram) + " " + why + ": HDF5 files are read without a trial of whether they are sound");
}

/// How the process ended, as waitpid() gives it; nothing where it could not be run.
std::optional<int> status_of_trial(const std::filesystem::path& path) {
  std::error_code error;
  const auto own = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = (own.parent_path() / kProgram).string();
  std::string name = kProgram, file = path.string();
  const std::array<char*, 3> argv{name.data(), file.data(), nullptr};
  const SpawnSettings settings;
  pid_t process = 0;
  const int failed =
      ::posix_spawn(&process, program.c_str(), settings.files(), settings.attributes(), argv.data(), environ);
  if (failed != 0) {
    warn_once("cannot be started (" + quote(program) + ": " + std::strerror(failed) + ")");
    return std::nullopt;
  }
  int status = 0;
  while (::waitpid(process, &status, 0) < 0)
    if (errno != EINTR) return std::nullopt;
  return status;
}

/// What the signal says of the file; "" for a signal that came from elsewhere.
std::string meaning_of(int signal) {
  switch (signal) {
    case SIGXCPU:
    case SIGALRM: return "its library did not come to an end over it";
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGABRT: return "its library crashed over it by signal " + std::to_string(signal) + ", " + ::strsignal(signal);
    default: return "";
  }
}

}  // namespace

void try_hdf5_file(const std::filesystem::path& path) {
  if (!has_hdf5_signature(path)) return;
  const auto status = status_of_trial(path);
  if (!status) return;
  if (WIFSIGNALED(*status)) {
    const std::string meaning = meaning_of(WTERMSIG(*status));
    const auto without_file = meaning.empty() ? std::nullopt : status_of_trial("/dev/null");
    if (without_file && WIFEXITED(*without_file))  // the process runs on this machine: it was the file
      throw InputError(quote(path.string()) + ": HDF5 cannot read it: it is damaged (" + meaning +
                       " in a trial); copy it again, or make it anew");
    warn_once("was ended by signal " + std::to_string(WTERMSIG(*status)));
  } else if (WEXITSTATUS(*status) != 0) {
    warn_once("failed with exit code " + std::to_string(WEXITSTATUS(*status)));
  }
}

}  // namespace hesspect
