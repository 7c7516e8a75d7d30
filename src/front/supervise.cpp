#include "supervise.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "launcher_lines.h"

extern char** environ;

namespace hesspect {
namespace {

using Clock = std::chrono::steady_clock;

/// Between fork and its own handlers a launcher would die of the signal, or lose it.
constexpr auto kUntilItListens = std::chrono::milliseconds(500);
/// How long output is waited for when the launcher has ended: others may hold the pipe open.
constexpr auto kForLastLines = std::chrono::seconds(2);
constexpr int kSignalBase = 128;  // shells' exit code of a process that a signal ended, less the signal

constexpr std::initializer_list<int> kHandled = {SIGTERM, SIGUSR1, SIGINT, SIGQUIT, SIGCHLD};

/// Closed with this.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }

 private:
  int number_;
};

struct Pipe {
  Descriptor read, write;
};

[[noreturn]] void throw_system(const std::string& what) { throw InputError(what + ": " + std::strerror(errno)); }

Pipe make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw_system("cannot make a pipe");
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

/// This process's variables with some in the place of those of their names.
std::vector<std::string> environment_with(const std::map<std::string, std::string>& variables) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text(*entry);
    if (!variables.contains(text.substr(0, text.find('=')))) all.push_back(text);
  }
  for (const auto& [name, value] : variables) all.push_back(name + "=" + value);
  return all;
}

/// The launcher, from its start to its end.
class Supervisor {
 public:
  explicit Supervisor(const LauncherCommand& command) : command_(command) {}

  LauncherEnd go() {
    listen_to_signals();
    start();
    while (!ended_at_ || (err_.is_open() && Clock::now() < *ended_at_ + kForLastLines)) wait();
    sigprocmask(SIG_SETMASK, &mask_, nullptr);
    if (!line_.empty()) print(lines_.take(line_));
    const int code = WIFSIGNALED(status_) ? kSignalBase + WTERMSIG(status_) : WEXITSTATUS(status_);
    if (is_ended_by_user_)
      log_info("ended at once, as asked; the last checkpoint counts");
    else if (!command_.has_terminal)
      print(lines_.finish(code));
    return {code, asked_ || is_ended_by_user_};
  }

 private:
  void listen_to_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : kHandled) sigaddset(&set, number);
    sigprocmask(SIG_BLOCK, &set, &mask_);
    signals_ = Descriptor(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_.is_open()) throw_system("cannot wait for signals");
  }

  void start() {
    Pipe err = command_.has_terminal ? Pipe() : make_pipe(), failure = make_pipe();
    std::vector<std::string> words = command_.words, variables = environment_with(command_.variables);
    const std::vector<char*> argv = pointers_to(words), environment = pointers_to(variables);
    child_ = fork();
    if (child_ < 0) throw_system("cannot start a process");
    if (child_ == 0) become_launcher(argv.data(), environment.data(), err.write.number(), failure.write.number());
    setpgid(child_, child_);  // the child does the same: whoever is first
    started_ = Clock::now();
    failure.write = Descriptor();
    int why = 0;
    if (read(failure.read.number(), &why, sizeof why) == sizeof why) {
      errno = why;
      throw_system("cannot start " + words.front());
    }
    err_ = std::move(err.read);
  }

  [[noreturn]] void become_launcher(char* const* argv, char* const* environment, int err, int failure) const {
    setpgid(0, 0);                     // keeps the terminal's Ctrl-C from it
    prctl(PR_SET_PDEATHSIG, SIGUSR1);  // a run that nobody sees any more is to be resumed
    for (const int number : kHandled) std::signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &mask_, nullptr);
    const int nothing = open("/dev/null", O_RDONLY);  // a group in the background must not read the terminal
    if (nothing >= 0) dup2(nothing, STDIN_FILENO);
    if (err >= 0) dup2(err, STDERR_FILENO);
    execvpe(argv[0], argv, environment);
    const int why = errno;
    [[maybe_unused]] const ssize_t written = write(failure, &why, sizeof why);
    _exit(127);
  }

  /// Until something happens.
  void wait() {
    pollfd waited[2] = {{signals_.number(), POLLIN, 0}, {err_.number(), POLLIN, 0}};  // poll passes over a negative one
    const bool is_due = (asked_ && !is_passed_on_) || ended_at_;
    poll(waited, 2, is_due ? 50 : -1);
    take_signals();
    if (err_.is_open() && waited[1].revents != 0) take_output();
    pass_on();
  }

  void take_signals() {
    signalfd_siginfo info{};
    while (read(signals_.number(), &info, sizeof info) == sizeof info) {
      const int number = static_cast<int>(info.ssi_signo);
      if (number == SIGCHLD) {
        if (!ended_at_ && waitpid(child_, &status_, WNOHANG) == child_) ended_at_ = Clock::now();
      } else if (number == SIGQUIT || (number == SIGINT && asked_)) {
        is_ended_by_user_ = true;
        if (!ended_at_) kill(child_, command_.end_signal);
      } else {
        if (number == SIGINT) log_info("stopping with a checkpoint; Ctrl-C again ends it at once");
        asked_ = true;
      }
    }
  }

  /// Once and no more: ranks that are asked again later on leave at once.
  void pass_on() {
    if (!asked_ || is_passed_on_ || ended_at_ || Clock::now() < started_ + kUntilItListens) return;
    is_passed_on_ = true;
    kill(child_, SIGUSR1);
  }

  void take_output() {
    char bytes[8192];
    const ssize_t count = read(err_.number(), bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) return;
    if (count <= 0) {
      err_ = Descriptor();
      return;
    }
    for (const char c : std::string_view(bytes, static_cast<std::size_t>(count))) {
      if (c != '\n')
        line_ += c;
      else
        print(lines_.take(std::exchange(line_, {})));
    }
  }

  static void print(const std::vector<std::string>& lines) {
    for (const std::string& line : lines) std::fprintf(stderr, "%s\n", line.c_str());
    std::fflush(stderr);
  }

  const LauncherCommand& command_;
  LauncherLines lines_;
  std::string line_;  // that has not ended yet
  sigset_t mask_{};   // before this
  Descriptor signals_, err_;
  pid_t child_ = -1;
  int status_ = 0;
  Clock::time_point started_;
  std::optional<Clock::time_point> ended_at_;
  bool asked_ = false;  // the ranks are to save and stop
  bool is_passed_on_ = false, is_ended_by_user_ = false;
};

}  // namespace

LauncherEnd supervise(const LauncherCommand& command) { return Supervisor(command).go(); }

}  // namespace hesspect
