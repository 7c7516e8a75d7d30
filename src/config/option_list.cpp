#include "hesspect/config/option_list.h"

#include <algorithm>
#include <cctype>
#include <sstream>

#include "hesspect/config/launch.h"
#include "hesspect/config/options.h"
#include "option_groups.h"

namespace hesspect {
namespace {

constexpr std::size_t kHelpColumn = 26;
constexpr std::size_t kLineLength = 100;

std::vector<std::string> alternatives(const std::string& value_name) {
  std::vector<std::string> parts;
  std::istringstream text(value_name);
  for (std::string part; std::getline(text, part, '|');) parts.push_back(part);
  return parts;
}

/// "FILE", "NAME=REGEX" and "X,X,…" stand for values; "auto" and "hutch++" are values.
bool is_word(const std::string& alternative) {
  return std::ranges::none_of(alternative, [](unsigned char c) { return std::isupper(c) != 0 || c >= 0x80; });
}

OptionTopic topic_of(const OptionGroup& group) {
  OptionTopic topic{group.title, {}};
  for (const Option& option : group.options)
    topic.options.push_back({option.name, option.value_name, option.help, option.get(), option.repeatable});
  return topic;
}

/// Characters, not bytes.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](unsigned char c) { return (c & 0xC0) != 0x80; }));
}

std::string lines_of(const OptionText& option) {
  const std::string letter = option.name == "help" ? "-h, " : option.name == "ranks" ? "-n, " : "";
  std::string text = "  " + letter + "--" + option.name + (option.is_flag() ? "" : " " + option.value_name);
  if (width_of(text) + 2 > kHelpColumn) text += "\n";
  std::size_t column = text.back() == '\n' ? 0 : width_of(text);
  std::istringstream words(option.full_help());
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

}  // namespace

std::vector<std::string> OptionText::words() const {
  std::vector<std::string> found = alternatives(value_name);
  std::erase_if(found, [](const std::string& each) { return !is_word(each); });
  return found;
}

bool OptionText::takes_file() const {
  const std::vector<std::string> all = alternatives(value_name);
  return std::ranges::find(all, "FILE") != all.end() || std::ranges::find(all, "FOLDER") != all.end();
}

bool OptionText::takes_folder_alone() const { return value_name == "FOLDER"; }

std::string OptionText::full_help() const {
  if (!is_flag()) return present.empty() ? help : help + " [" + present.front() + "]";
  return present.front() == "true" ? help + " [on; --" + name + "=false: off]" : help;
}

std::string help_block(const OptionTopic& topic) {
  std::string text = "\n" + topic.title + "\n";
  for (const OptionText& option : topic.options) text += lines_of(option);
  return text;
}

std::vector<OptionTopic> options_of(Command command) {
  Invocation run;
  RunConfig& c = run.config;
  std::string ini_file;
  std::vector<OptionTopic> topics;
  const auto add = [&](const OptionGroup& group) { topics.push_back(topic_of(group)); };
  const auto add_output = [&] {
    add(output_options(c.output));
    add(general_options(run, ini_file));
  };
  if (command == Command::kNone) return {};
  if (command == Command::kInspect) {
    add(general_options(run, ini_file));
    return topics;
  }
  if (reads_results(command)) {
    add(report_options(c.report));
    add_output();
    return topics;
  }
  if (command == Command::kSeries) add(series_options(c.series));
  add(model_options(c.model));
  add(data_options(c.data));
  add(loss_options(c.loss));
  add(preset_options(c));
  if (command == Command::kInputs) {
    add(inputs_options(c.inputs));
    add(compute_options(c.compute));
    add(checkpoint_options(c.checkpoint));
    add_output();
    return topics;
  }
  const bool landscape = command == Command::kLandscape || command == Command::kSharpness;
  const bool features = command == Command::kFeatures;
  add(curvature_options(c.curvature));
  add(parts_options(c.parts, c.eigs));
  if (features) add(features_options(c.features));
  if (command == Command::kLandscape) add(landscape_options(c.landscape));
  if (command == Command::kSharpness) {
    add(sharpness_options(c.sharpness));
    add(report_options(c.report));
  }
  if (command != Command::kDensity && command != Command::kTrace) add(eigs_options(c.eigs));
  if (command != Command::kDensity && command != Command::kEigs && !landscape && !features) add(trace_options(c.trace));
  if (!landscape) add(accuracy_options(c.accuracy));
  add(quadrature_options(c.quadrature));
  add(compute_options(c.compute));
  add(layout_options(c.layout));
  if (command == Command::kPlan)
    add(plan_options(c.plan));
  else if (command != Command::kSharpness)
    add(checkpoint_options(c.checkpoint));
  add_output();
  return topics;
}

OptionTopic launch_topic() {
  LaunchConfig config;
  return topic_of(launch_options(config));
}

}  // namespace hesspect
