#include "python_commands.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"

namespace hesspect {
namespace {

// As `hesspect --help` and python/hesspect/__main__.py have them; tests/app/messages.py compares.
constexpr std::string_view kCommands[] = {"export", "data", "plot", "tables", "track"};

/// Started by mpirun or a like launcher, beside others.
bool is_one_of_several_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (const char* size = std::getenv(name); size != nullptr) return std::atoi(size) > 1;
  return false;
}

}  // namespace

int go_over_to_python(int argc, char** argv) {
  if (argc < 2 || std::ranges::find(kCommands, std::string_view(argv[1])) == std::end(kCommands)) return -1;
  const std::string name = std::string("hesspect ") + argv[1];
  if (is_one_of_several_ranks()) {
    log_error("'" + name + "' is no work for several ranks: run it without mpirun");
    return static_cast<int>(ExitCode::kUsage);
  }
  std::vector<std::string> interpreters;
  if (const char* own = std::getenv("HESSPECT_PYTHON"); own != nullptr && *own != '\0')
    interpreters = {own};
  else
    interpreters = {HESSPECT_BUILT_WITH_PYTHON, "python3"};
  std::vector<char*> arguments{nullptr, const_cast<char*>("-m"), const_cast<char*>("hesspect")};
  for (int i = 1; i < argc; ++i) arguments.push_back(argv[i]);
  arguments.push_back(nullptr);
  std::string why;
  for (std::string& each : interpreters) {
    arguments[0] = each.data();
    execvp(each.c_str(), arguments.data());
    why += (why.empty() ? "" : "; ") + each + ": " + std::strerror(errno);
  }
  log_error("'" + name + "' wants Python (" + why +
            "): set HESSPECT_PYTHON to the interpreter that has the package hesspect");
  return static_cast<int>(ExitCode::kBadInput);
}

}  // namespace hesspect
