#include "hesspect/config/options.h"

#include <algorithm>
#include <boost/program_options/cmdline.hpp>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/parsers.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <set>
#include <sstream>

#include "hesspect/config/commands.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "ini.h"
#include "option_groups.h"

extern char** environ;

namespace hesspect {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kPrefix = "HESSPECT_";

constexpr Command kCommands[] = {Command::kAnalyze,   Command::kDensity,   Command::kEigs,   Command::kTrace,
                                 Command::kLandscape, Command::kSharpness, Command::kInputs, Command::kFeatures,
                                 Command::kPlan,      Command::kInspect,   Command::kReport, Command::kCompare,
                                 Command::kSeries};

/// Variables of the build, the launchers and the tests, which are no options.
const std::set<std::string> kOtherVariables = {
    "HESSPECT_BIN",  "HESSPECT_BOOT_ID", "HESSPECT_FIXTURES",    "HESSPECT_JOBS",   "HESSPECT_LAUNCHER",
    "HESSPECT_LONG", "HESSPECT_PYTHON",  "HESSPECT_PYTHON_BASE", "HESSPECT_SOURCE", "HESSPECT_SPOOL"};

std::string variable_name(const std::string& option) {
  std::string name(kPrefix);
  for (char c : option) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

/// The values of one option from one source, and how a message names them.
struct Setting {
  std::string option;
  std::vector<std::string> values;
  std::string origin;
};
using Settings = std::vector<Setting>;

[[noreturn]] void rethrow_usage(const po::error& error) {
  if (const auto* option = dynamic_cast<const po::error_with_option_name*>(&error)) {
    const std::string name = option->get_option_name();
    if (dynamic_cast<const po::invalid_command_line_syntax*>(&error) ||
        dynamic_cast<const po::invalid_syntax*>(&error)) {
      std::string text = error.what();
      text.erase(std::remove(text.begin(), text.end(), '\n'), text.end());
      throw UsageError(text);
    }
    throw UsageError(name + ": " + error.what());
  }
  throw UsageError(error.what());
}

/// A flag takes no word after it: `--force` becomes `--force=true` before Boost could take one.
std::vector<std::string> closed_flags(std::vector<std::string> args, const OptionTable& table) {
  for (std::string& arg : args) {
    if (arg == "--") break;
    if (arg == "-h") arg = "--help";
    const Option* option = arg.starts_with("--") ? table.find(arg.substr(2)) : nullptr;
    if (option != nullptr && option->value_name.empty()) arg += "=true";
  }
  return args;
}

Settings::iterator find(Settings& settings, const std::string& option) {
  return std::find_if(settings.begin(), settings.end(), [&](const Setting& s) { return s.option == option; });
}

Settings read_arguments(const std::vector<std::string>& args, const OptionTable& table,
                        std::vector<std::string>& words) {
  po::options_description all;
  for (const auto& group : table.groups) all.add(boost_options(group));
  const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  Settings settings;
  try {
    const auto parsed =
        po::command_line_parser(closed_flags(args, table)).options(all).style(style).allow_unregistered().run();
    for (const auto& option : parsed.options) {
      if (option.position_key >= 0) {
        words.insert(words.end(), option.value.begin(), option.value.end());
        continue;
      }
      const std::string& token = option.original_tokens.empty() ? option.string_key : option.original_tokens.front();
      if (option.unregistered) {
        std::string name = token.substr(0, token.find('='));
        const std::string bare = name.substr(std::min(name.find_first_not_of('-'), name.size()));
        std::string near = did_you_mean(bare, table.names());
        if (const auto quote = near.find('\''); quote != std::string::npos) near.insert(quote + 1, "--");
        throw UsageError("unknown option '" + name + "'" + near);
      }
      auto same = find(settings, option.string_key);
      if (same == settings.end()) same = settings.insert(settings.end(), {option.string_key, {}, ""});
      same->values.insert(same->values.end(), option.value.begin(), option.value.end());
      if (option.value.empty()) same->values.push_back("true");  // a bare flag
    }
  } catch (const po::error& error) {
    rethrow_usage(error);
  }
  for (auto& s : settings) {
    s.origin = "--" + s.option;
    for (const auto& value : s.values) s.origin += " " + value;
  }
  return settings;
}

Settings read_environment(const Environment& environment, const OptionTable& table) {
  std::vector<std::string> names{std::string(kPrefix) + "CONFIG"};
  for (const auto& name : table.names()) names.push_back(variable_name(name));
  Settings settings;
  for (const auto& [name, value] : environment) {
    if (!name.starts_with(kPrefix) || kOtherVariables.contains(name)) continue;
    const auto known = std::find(names.begin(), names.end(), name);
    if (known == names.end())
      throw UsageError("unknown environment variable '" + name + "'" + did_you_mean(name, names));
    if (value.empty()) continue;  // set to nothing: as good as unset
    const std::string option = known == names.begin() ? "config" : table.names()[known - names.begin() - 1];
    settings.push_back({option, {value}, name + "=" + value});
  }
  return settings;
}

Settings read_ini(const std::string& text, const std::string& name, const OptionTable& table) {
  Settings settings;
  for (const auto& entry : parse_ini(text, name)) {
    const std::string where = name + ":" + std::to_string(entry.line);
    const Option* option = table.find(entry.key);
    if (option == nullptr)
      throw UsageError(where + ": unknown key '" + entry.key + "'" + did_you_mean(entry.key, table.names()));
    auto same = find(settings, entry.key);
    if (same != settings.end() && !option->repeatable) throw UsageError(where + ": '" + entry.key + "' is given twice");
    if (same == settings.end())
      same = settings.insert(settings.end(), {entry.key, {}, where + ": " + entry.key + " = " + entry.value});
    same->values.push_back(entry.value);
  }
  return settings;
}

std::string read_file(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) throw UsageError("--config '" + path + "' is a directory");
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) throw UsageError("cannot read --config '" + path + "': " + std::strerror(errno));
  return text.str();
}

void apply_settings(const Settings& settings, const OptionTable& table) {
  for (const auto& setting : settings) {
    const Option* option = table.find(setting.option);
    if (option == nullptr) continue;  // of the command line alone, applied before
    if (setting.values.size() > 1 && !option->repeatable) throw UsageError("--" + setting.option + " is given twice");
    try {
      option->set(setting.values);
    } catch (const UsageError& error) {
      throw UsageError(setting.origin + ": " + error.what());
    }
  }
}

std::string ini_text(const RunConfig& config, const std::set<std::string>& left_out) {
  RunConfig copy = config;
  std::string text;
  for (const auto& group : run_options(copy).groups) {
    std::string lines;
    for (const auto& option : group.options)
      if (!left_out.contains(option.name))
        for (const auto& value : option.get()) lines += option.name + " = " + ini_value(value) + "\n";
    if (!lines.empty()) text += (text.empty() ? "# " : "\n# ") + group.title + "\n" + lines;
  }
  return text;
}

/// The preset stands below all other options, whichever source names it.
/// @param sources  each wins over those before it
void apply_preset_of(std::initializer_list<Settings*> sources, const OptionTable& table, RunConfig& config) {
  for (Settings* const settings : sources)
    if (const auto named = find(*settings, "preset"); named != settings->end()) apply_settings({*named}, table);
  apply_preset(config);
}

/// What reads earlier results computes nothing anew: an option about the run that it does not do is a mistake.
void check_used(const Settings& arguments, std::set<std::string> used, const std::string& otherwise) {
  used.insert({"output", "force", "quiet", "verbose", "config", "print-config"});
  for (const auto& s : arguments)
    if (!used.contains(s.option)) throw UsageError("--" + s.option + " has no effect on " + otherwise);
}

}  // namespace

Command command_from(const std::string& name) {
  for (const Command command : kCommands)
    if (name == to_string(command)) return command;
  throw UsageError("unknown command '" + name + "'" + did_you_mean(name, command_names()) +
                   "; 'hesspect --help' lists them");
}

Environment hesspect_environment() {
  Environment environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string text(*entry);
    if (const auto equals = text.find('='); text.starts_with(kPrefix) && equals != std::string::npos)
      environment[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return environment;
}

Invocation parse_command_line(const std::vector<std::string>& args, const Environment& environment) {
  Invocation run;
  std::string ini_file;
  const OptionTable table = run_options(run.config);
  const OptionTable own_table{{general_options(run, ini_file)}};
  OptionTable both = own_table;
  both.groups.insert(both.groups.end(), table.groups.begin(), table.groups.end());

  std::vector<std::string> words;
  const Settings arguments = read_arguments(args, both, words);
  apply_settings(arguments, own_table);
  auto word = words.begin();
  if (word != words.end() && *word == "help") {
    run.help = true;
    ++word;
  }
  if (word != words.end()) run.command = command_from(*word++);
  if (run.help || run.version) return run;
  if (run.command == Command::kNone) throw UsageError("no command is given; 'hesspect --help' lists them");
  if (run.command == Command::kInspect && word != words.end()) run.file = *word++;
  while (reads_results(run.command) && word != words.end()) run.files.push_back(*word++);
  if (word != words.end()) throw UsageError("unexpected argument '" + *word + "'");

  Settings variables;
  if (run.command != Command::kInspect && !reads_results(run.command)) {
    variables = read_environment(environment, table);
    if (const auto config = find(variables, "config"); ini_file.empty() && config != variables.end())
      ini_file = config->values.front();
  }
  std::set<std::string> given;
  const auto apply = [&](const Settings& settings) {
    apply_settings(settings, table);
    for (const auto& setting : settings) given.insert(setting.option);
  };
  Settings lines = ini_file.empty() ? Settings{} : read_ini(read_file(ini_file), ini_file, table);
  Settings on_line = arguments;
  apply_preset_of({&lines, &variables, &on_line}, table, run.config);
  apply(lines);
  apply(variables);
  apply(arguments);
  resolve_defaults(run.config, given);
  if (run.command == Command::kDensity && !run.config.output.from.empty())
    check_used(arguments, {"from", "sigma"}, "'density --from', which smooths the probes of the earlier result again");
  if (reads_results(run.command))
    check_used(arguments, {"format", "momentum", "damping"},
               "'" + to_string(run.command) + "', which reads earlier results");
  if (!run.print_config) check_whole(run);
  return run;
}

std::string to_ini(const RunConfig& config) { return ini_text(config, {}); }

std::string to_ini_of_result(const RunConfig& config) {
  RunConfig copy = config;
  std::set<std::string> others = {"preset", "model", "weights", "data", "threads", "directions-file"};
  for (const OptionGroup& group :
       {layout_options(copy.layout), checkpoint_options(copy.checkpoint), plan_options(copy.plan),
        sharpness_options(copy.sharpness), series_options(copy.series), output_options(copy.output),
        report_options(copy.report)})
    for (const Option& option : group.options)
      if (option.name != "basis-dtype") others.insert(option.name);
  return ini_text(config, others);
}

/// Of a job's file (job_options.cpp): as an ini file that nothing stands above, which is looked at later.
RunConfig config_of_job(const std::string& text, const std::string& name) {
  RunConfig config;
  const OptionTable table = run_options(config);
  Settings lines = read_ini(text, name, table);
  apply_preset_of({&lines}, table, config);
  apply_settings(lines, table);
  std::set<std::string> given;
  for (const Setting& setting : lines) given.insert(setting.option);
  resolve_defaults(config, given);
  return config;
}

RunConfig from_ini(const std::string& text, const std::string& name) {
  RunConfig config;
  const OptionTable table = run_options(config);
  Settings lines = read_ini(text, name, table);
  apply_preset_of({&lines}, table, config);
  apply_settings(lines, table);
  return config;
}

}  // namespace hesspect
