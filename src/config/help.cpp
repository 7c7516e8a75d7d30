// The help texts. Boost's own layout shows an argument where a flag takes none and widens every line to the longest
// option.
#include "hesspect/config/commands.h"
#include "hesspect/config/option_list.h"
#include "hesspect/config/options.h"

namespace hesspect {
namespace {

constexpr std::size_t kNameWidth = 10;

std::string program_help() {
  std::string text =
      "hesspect: the curvature spectrum of a trained network, without ever forming the matrix\n\n"
      "usage: hesspect COMMAND [options]\n"
      "       hesspect run --ranks N COMMAND [options]     (or mpirun -n N hesspect COMMAND [options])\n";
  std::string_view heading;
  for (const CommandEntry& entry : command_entries()) {
    if (entry.heading != heading) {
      heading = entry.heading;
      text += "\n" + std::string(heading) + "\n";
    }
    text += "  " + std::string(entry.name) + std::string(kNameWidth - entry.name.size(), ' ') + " " +
            std::string(entry.about) + "\n";
  }
  return text + "\nhesspect COMMAND --help lists its options; hesspect --version says what this is built with.\n";
}

}  // namespace

std::string usage_text(Command command) {
  switch (command) {
    case Command::kInspect: return "hesspect inspect FILE    (.pt2, state dict, data file, result or series)\n";
    case Command::kReport: return "hesspect report R.h5 ... [--format text|json|html] [--output FILE] [options]\n";
    case Command::kCompare: return "hesspect compare A.h5 B.h5 ... [--format text|json] [--output FILE] [options]\n";
    default: break;
  }
  std::string text = "hesspect " + to_string(command) + " --model M.pt2 --data D.h5 --loss LOSS" +
                     (command == Command::kSeries ? " --checkpoints 'ckpt/*.safetensors'" : "") +
                     (command == Command::kPlan ? " [--world N] [--memory SIZE]" : " --output R.h5") + " [options]\n";
  if (command == Command::kDensity) text += "       hesspect density --from R.h5 [--sigma X] --output S.h5\n";
  return text;
}

std::string help_text(Command command) {
  if (command == Command::kNone) return program_help();
  std::string text = "usage: " + usage_text(command);
  if (command == Command::kInspect) return text;
  if (!reads_results(command))
    text +=
        "\nEvery option can also stand in an ini file or in the environment (--micro-batch: HESSPECT_MICRO_BATCH).\n";
  for (const OptionTopic& topic : options_of(command)) text += help_block(topic);
  return text;
}

std::string launch_help() {
  return "usage: hesspect run --ranks N [options] COMMAND [the command's options]\n\n"
         "Starts the command on N processes. What can be told beforehand, such as an unknown option, a missing file or "
         "a\n"
         "result that is there already, is told before they start. Ctrl-C, SIGTERM and SIGUSR1 make them write a\n"
         "checkpoint and stop (exit 75); a second Ctrl-C ends them at once.\n" +
         help_block(launch_topic());
}

}  // namespace hesspect
