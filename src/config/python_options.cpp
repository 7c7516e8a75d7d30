// The options of the commands in Python, which is not asked each time that a shell completes a line.
#include "hesspect/config/option_list.h"

namespace hesspect {

const std::vector<PythonCommand>& python_commands() {
  static const std::vector<PythonCommand> commands = {
#include "python_options.inc"
  };
  return commands;
}

}  // namespace hesspect
