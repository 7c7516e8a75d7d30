#include "python_commands.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "hesspect/config/commands.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/front/front.h"

namespace hesspect {
namespace {

/// As config/commands.h has them, and python/hesspect/__main__.py; tests/app/front.py compares.
bool is_of_python(const char* name) {
  const CommandEntry* const entry = find_command(name);
  return entry != nullptr && entry->home == CommandHome::kPython;
}

}  // namespace

int go_over_to_python(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "help" && is_of_python(argv[2])) {  // `help plot`
    argv[1] = argv[2];
    argv[2] = const_cast<char*>("--help");
  }
  if (argc < 2 || !is_of_python(argv[1])) return -1;
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
