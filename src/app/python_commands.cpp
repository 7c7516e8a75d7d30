#include "python_commands.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
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

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

/// `cmake --install` puts the package beside the program, where no interpreter looks by itself.
/// @return whether it is there
bool show_installed_package(const std::filesystem::path& prefix) {
  const std::filesystem::path packages = prefix / "share/hesspect/python";
  if (!is_there(packages / "hesspect/__main__.py")) return false;
  const char* const before = std::getenv("PYTHONPATH");
  const std::string all = before == nullptr || *before == '\0' ? packages.string() : packages.string() + ':' + before;
  ::setenv("PYTHONPATH", all.c_str(), 1);
  return true;
}

/// Interpreters to try: the one that is named, else that of the environment that pip has installed hesspect in, the one
/// that it was built with, and the PATH's.
std::vector<std::string> interpreters() {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const bool by_cmake = show_installed_package(folder.parent_path());
  if (const char* named = std::getenv("HESSPECT_PYTHON"); named != nullptr && *named != '\0') return {named};
  std::vector<std::string> found;
  for (const char* name : {"python3", "python"})
    if (!by_cmake && is_there(folder / name)) found.push_back(folder / name);
  found.insert(found.end(), {HESSPECT_BUILT_WITH_PYTHON, "python3"});
  return found;
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
  std::vector<char*> arguments{nullptr, const_cast<char*>("-m"), const_cast<char*>("hesspect")};
  for (int i = 1; i < argc; ++i) arguments.push_back(argv[i]);
  arguments.push_back(nullptr);
  std::string why;
  for (std::string& each : interpreters()) {
    arguments[0] = each.data();
    execvp(each.c_str(), arguments.data());
    why += (why.empty() ? "" : "; ") + each + ": " + std::strerror(errno);
  }
  log_error("'" + name + "' wants Python (" + why +
            "): set HESSPECT_PYTHON to the interpreter that has the package hesspect");
  return static_cast<int>(ExitCode::kBadInput);
}

}  // namespace hesspect
