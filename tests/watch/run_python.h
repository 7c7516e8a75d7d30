// Runs a script of this folder: what others see of us is looked at by programs that are not ours.
#pragma once

#include <cstdlib>
#include <string>

namespace hesspect::test {

/// @param arguments  in the shell's words
/// @return whether it ended with 0; what it found wrong stands on stderr
inline bool run_python(const std::string& script, const std::string& arguments) {
  const char *python = std::getenv("HESSPECT_PYTHON"), *source = std::getenv("HESSPECT_SOURCE");
  if (python == nullptr || source == nullptr) return false;
  const std::string command =
      "'" + std::string(python) + "' '" + std::string(source) + "/tests/watch/" + script + "' " + arguments;
  return std::system(command.c_str()) == 0;
}

}  // namespace hesspect::test
