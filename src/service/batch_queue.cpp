#include "hesspect/service/batch_queue.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <span>
#include <sstream>
#include <system_error>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

struct Said {
  int code = 127;
  std::string out, err;
};

/// Runs a program of the PATH, without a shell. @return code 127 where it is not there
Said run(Words words) {
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0) throw InputError(std::string("cannot make a pipe: ") + std::strerror(errno));
  if (pipe2(err, O_CLOEXEC) != 0) {
    ::close(out[0]);
    ::close(out[1]);
    throw InputError(std::string("cannot make a pipe: ") + std::strerror(errno));
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const int nothing = ::open("/dev/null", O_RDONLY);
    if (nothing >= 0) dup2(nothing, STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    execvp(argv.front(), argv.data());
    _exit(127);
  }
  ::close(out[1]);
  ::close(err[1]);
  Said said;
  const auto take = [](int fd, std::string& text) {
    std::array<char, 4096> bytes{};
    for (;;) {
      const ssize_t count = ::read(fd, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) break;
      text.append(bytes.data(), static_cast<std::size_t>(count));
    }
    ::close(fd);
  };
  take(out[0], said.out);  // these programs write little to the other pipe: it does not fill
  take(err[0], said.err);
  int status = 0;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (child > 0 && WIFEXITED(status)) said.code = WEXITSTATUS(status);
  return said;
}

std::string line_of(const std::string& text) { return one_line(text.substr(0, text.find('\n'))); }

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// launch/slurm of the checkout, or share/hesspect/slurm of an installation.
fs::path script_folder() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  std::vector<fs::path> places = {program.parent_path() / "share/hesspect/slurm",
                                  program.parent_path().parent_path().parent_path() / "launch/slurm"};
  if (const std::string source = variable("HESSPECT_SOURCE"); !source.empty())
    places.insert(places.begin(), fs::path(source) / "launch/slurm");
  for (const fs::path& place : places)
    if (fs::exists(place / "spool_job.sbatch", error)) return place;
  throw UsageError("the script spool_job.sbatch is in none of " + format_names({places.begin(), places.end()}) +
                   ": set HESSPECT_SOURCE to the checkout");
}

std::string own_program() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).string();
}

std::string number_in(const std::string& service, const char* system) {
  const std::string prefix = std::string(system) + " ";
  return service.starts_with(prefix) ? line_of(service.substr(prefix.size())) : "";
}

}  // namespace

void submit_to_batch(const Spool& spool, const std::vector<std::string>& ids, const QueueConfig& config) {
  const std::string system = config.slurm ? "slurm" : "flux";
  const std::string& id = ids.front();
  const bool is_array = ids.size() > 1;
  const fs::path list = spool.path("slurm") / (id + ".array");  // of an array's tasks, a line each
  try {
    if (is_array && config.flux)
      throw UsageError("--flux takes a job at a time: hand the checkpoints of a series in one by one");
    const std::string script = (script_folder() / "spool_job.sbatch").string();
    setenv("HESSPECT_BIN", own_program().c_str(), /*overwrite=*/0);
    Words words = config.slurm ? Words{"sbatch", "--parsable", "--job-name=hesspect-" + id,
                                       "--output=" + (spool.path("log") / (id + ".slurm")).string()}
                               : Words{"flux", "batch", "--job-name=hesspect-" + id,
                                       "--output=" + (spool.path("log") / (id + ".slurm")).string()};
    if (is_array) {
      std::string lines;
      for (const std::string& one : ids) lines += one + "\n";
      write_file_atomically(list, std::as_bytes(std::span(lines)));
      words.push_back("--array=1-" + std::to_string(ids.size()));
    }
    std::istringstream more(config.batch_options);
    for (std::string word; more >> word;) words.push_back(word);
    for (const std::string& word : Words{script, spool.folder().string(), id}) words.push_back(word);
    const Said said = run(words);
    if (said.code == 127)
      throw UsageError("'submit --" + system + "' needs " + words.front() + ", which is not on the PATH");
    if (said.code != 0)
      throw InputError(words.front() + " does not take the job (exit code " + std::to_string(said.code) +
                       "): " + line_of(said.err.empty() ? said.out : said.err));
    const std::string number = line_of(said.out.substr(0, said.out.find_first_of(";\n")));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::string note = system + " " + number + (is_array ? "_" + std::to_string(i + 1) : "");
      write_file_atomically(spool.path("slurm") / (ids[i] + ".number"), std::as_bytes(std::span(note)));
    }
  } catch (...) {
    std::error_code error;
    for (const std::string& one : ids) fs::remove(spool.path("slurm") / (one + ".ini"), error);
    fs::remove(list, error);
    throw;
  }
}

std::string batch_state(const std::string& service) {
  if (const std::string number = number_in(service, "slurm"); !number.empty())
    return line_of(run({"squeue", "-h", "-o", "%T", "-j", number}).out);
  if (const std::string number = number_in(service, "flux"); !number.empty())
    return line_of(run({"flux", "jobs", "-n", "-o", "{state}", number}).out);
  return "";
}

void cancel_in_batch(const std::string& service) {
  if (const std::string number = number_in(service, "slurm"); !number.empty()) run({"scancel", number});
  if (const std::string number = number_in(service, "flux"); !number.empty()) run({"flux", "cancel", number});
}

}  // namespace hesspect
