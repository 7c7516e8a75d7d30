// The help texts. Boost's own layout shows an argument where a flag takes none and widens every line to the longest
// option.
#include <sstream>

#include "hesspect/config/options.h"
#include "option_groups.h"

namespace hesspect {
namespace {

constexpr std::size_t kHelpColumn = 26;
constexpr std::size_t kLineLength = 100;

std::string lines_of(const Option& option) {
  std::string text = "  " + std::string(option.name == "help" ? "-h, " : "") + "--" + option.name +
                     (option.value_name.empty() ? "" : " " + option.value_name);
  std::string help = option.help;
  const auto present = option.get();
  if (!option.value_name.empty() && !present.empty()) help += " [" + present.front() + "]";
  if (option.value_name.empty() && present.front() == "true") help += " [on; --" + option.name + "=false: off]";
  if (text.size() + 2 > kHelpColumn) text += "\n";
  std::size_t column = text.back() == '\n' ? 0 : text.size();
  std::istringstream words(help);
  bool first = true;
  for (std::string word; words >> word; first = false) {
    if (!first && column + 1 + word.size() > kLineLength) {
      text += "\n";
      column = 0;
      first = true;
    }
    if (first) {
      text += std::string(kHelpColumn - column, ' ');
      column = kHelpColumn;
    } else {
      text += " ";
      ++column;
    }
    text += word;
    column += word.size();
  }
  return text + "\n";
}

std::string block(const OptionGroup& group) {
  std::string text = "\n" + group.title + "\n";
  for (const auto& option : group.options) text += lines_of(option);
  return text;
}

}  // namespace

std::string help_text(Command command) {
  if (command == Command::kNone)
    return "hesspect: the curvature spectrum of a trained network, without ever forming the matrix\n\n"
           "usage: hesspect COMMAND [options], or mpirun -n RANKS hesspect COMMAND [options]\n\n"
           "  analyze   density, trace, layers' traces, top and bottom eigenvalues, each as good as asked for\n"
           "  density   the spectral density alone, or an earlier one smoothed again (--from)\n"
           "  eigs      top and bottom eigenvalues alone\n"
           "  trace     the trace alone\n"
           "  inputs    how sharp the loss is in each row's inputs, and which rows are the most fragile\n"
           "  landscape the loss along eigenvectors, random directions or the way to another checkpoint\n"
           "  sharpness what ascent steps, steps of an optimiser and random steps do to the loss\n"
           "  features  curvature, frequency and sensitivity of embedding tables, their rows, and input columns\n"
           "  plan      what a run would take in memory, messages and time, and its layout over ranks\n"
           "  inspect   what a .pt2, a state dict, a data file or a result holds\n"
           "  report    what results say of their models, with intervals, sources and objections\n"
           "  compare   like-trained models side by side\n\n"
           "in Python:\n"
           "  export    a Hugging Face folder or another model to the program that hesspect reads\n"
           "  data      text, tables or images to the data file that hesspect reads\n"
           "  plot      a picture of a result\n"
           "  tables    the tables of a result as CSV or JSON\n"
           "  track     a result for TensorBoard, Weights & Biases or MLflow\n\n"
           "hesspect COMMAND --help lists its options; hesspect --version says what this is built with.\n";
  if (command == Command::kInspect) return "usage: hesspect inspect FILE    (.pt2, state dict, data file or result)\n";
  Invocation run;
  RunConfig& config = run.config;
  std::string ini_file;
  if (reads_results(command))
    return std::string("usage: hesspect ") +
           (command == Command::kReport ? "report R.h5 ... [--format text|json|html]"
                                        : "compare A.h5 B.h5 ... [--format text|json]") +
           " [--output FILE] [options]\n" + block(report_options(config.report)) +
           block(output_options(config.output)) + block(general_options(run, ini_file));
  std::string text = "usage: hesspect " + to_string(command) + " --model M.pt2 --data D.h5 --loss LOSS" +
                     (command == Command::kPlan ? " [--world N] [--memory SIZE]" : " --output R.h5") + " [options]\n";
  if (command == Command::kDensity) text += "       hesspect density --from R.h5 [--sigma X] --output S.h5\n";
  text += "\nEvery option can also stand in an ini file or in the environment (--micro-batch: HESSPECT_MICRO_BATCH).\n";
  text += block(model_options(config.model)) + block(data_options(config.data)) + block(loss_options(config.loss));
  if (command == Command::kInputs)
    return text + block(inputs_options(config.inputs)) + block(compute_options(config.compute)) +
           block(output_options(config.output)) + block(general_options(run, ini_file));
  text += block(curvature_options(config.curvature)) + block(parts_options(config.parts, config.eigs));
  const bool landscape = command == Command::kLandscape || command == Command::kSharpness;
  const bool features = command == Command::kFeatures;
  if (features) text += block(features_options(config.features));
  if (command == Command::kLandscape) text += block(landscape_options(config.landscape));
  if (command == Command::kSharpness)
    text += block(sharpness_options(config.sharpness)) + block(report_options(config.report));
  if (command != Command::kDensity && command != Command::kTrace) text += block(eigs_options(config.eigs));
  if (command != Command::kDensity && command != Command::kEigs && !landscape && !features)
    text += block(trace_options(config.trace));
  if (!landscape) text += block(accuracy_options(config.accuracy));
  text += block(quadrature_options(config.quadrature)) + block(compute_options(config.compute)) +
          block(layout_options(config.layout));
  if (!landscape)
    text += block(command == Command::kPlan ? plan_options(config.plan) : checkpoint_options(config.checkpoint));
  text += block(output_options(config.output)) + block(general_options(run, ini_file));
  return text;
}

}  // namespace hesspect
