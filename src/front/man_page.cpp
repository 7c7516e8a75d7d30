#include "man_page.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string_view>
#include <vector>

#include "hesspect/config/commands.h"
#include "hesspect/config/option_list.h"
#include "hesspect/config/options.h"
#include "hesspect/config/service_options.h"

namespace hesspect {
namespace {

constexpr std::size_t kLongestLine = 78;

/// The code point that begins at `text[at]`, which is moved behind it; what is no UTF-8 counts as a character.
std::uint32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  const std::size_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : first >= 0xC0 ? 1 : 0;
  std::uint32_t code = more == 0 ? first : first & (0x3Fu >> more);
  ++at;
  for (std::size_t i = 0; i < more && at < text.size(); ++i, ++at) code = code << 6 | (byte(at) & 0x3Fu);
  return code;
}

/// As roff's text: what would be a request, an escape or a hyphen is none.
std::string roff(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::uint32_t code = next_code_point(text, at);
    if (code == '\\') {
      out += "\\e";
    } else if (code == '-') {
      out += "\\-";
    } else if (code == 0x2026) {
      out += "...";
    } else if (code >= 0x80) {
      char name[16];
      std::snprintf(name, sizeof name, "\\[u%04X]", static_cast<unsigned>(code));
      out += name;
    } else {
      if (out.empty() && (code == '.' || code == '\'')) out += "\\&";
      out += static_cast<char>(code);
    }
  }
  return out;
}

/// The same as lines of a source file, none of which begins with what would be a request.
std::string roff_lines(std::string_view text) {
  std::istringstream words(roff(text));
  std::string lines, line;
  for (std::string word; words >> word;) {
    if (!line.empty() && line.size() + 1 + word.size() > kLongestLine) {
      lines += line + "\n";
      line.clear();
    }
    if (line.empty())
      line = (word.front() == '.' || word.front() == '\'' ? "\\&" : "") + word;
    else
      line += " " + word;
  }
  return lines + line;
}

std::string bold(std::string_view text) { return "\\fB" + roff(text) + "\\fR"; }
std::string italic(std::string_view text) { return "\\fI" + roff(text) + "\\fR"; }

std::string section(std::string_view title) { return ".SH " + std::string(title) + "\n"; }
std::string paragraph(std::string_view text) { return ".PP\n" + roff_lines(text) + "\n"; }
std::string entry_of(const std::string& tag, const std::string& text) {
  return ".TP\n" + tag + "\n" + roff_lines(text) + "\n";
}

std::string example(std::initializer_list<std::string_view> lines) {
  std::string text = ".PP\n.RS 4\n.nf\n";
  for (const std::string_view line : lines) text += roff(line) + "\n";
  return text + ".fi\n.RE\n";
}

/// Long lists of words may be broken between two.
std::string value_of(const OptionText& option) {
  std::string text;
  for (const char c : italic(option.value_name)) text += c == '|' ? std::string("|\\:") : std::string(1, c);
  return text;
}

std::string tag_of(const OptionText& option) {
  const std::string letter = option.name == "help" ? "h" : option.name == "ranks" ? "n" : option.letter;
  return (letter.empty() ? "" : bold("-" + letter) + ", ") + bold("--" + option.name) +
         (option.is_flag() ? "" : " " + value_of(option));
}

std::string commands_section() {
  std::string text = section("COMMANDS"), heading;
  for (const CommandEntry& entry : command_entries()) {
    if (entry.heading != heading) {
      heading = entry.heading;
      text += ".SS " + roff(heading) + "\n";
    }
    std::string about(entry.about);
    for (const std::string_view kind : entry.kinds)
      about += (kind == entry.kinds.front() ? ": " : ", ") + std::string(kind);
    text += entry_of(bold(entry.name), about);
  }
  return text;
}

/// A topic, and the commands that have it.
struct SharedTopic {
  OptionTopic topic;
  std::vector<std::string> commands;
};

std::vector<SharedTopic> all_topics() {
  std::vector<SharedTopic> all;
  for (const CommandEntry& entry : command_entries()) {
    if (entry.home != CommandHome::kRanks && entry.home != CommandHome::kOne) continue;
    for (const OptionTopic& topic : options_of(command_from(std::string(entry.name)))) {
      auto same = std::ranges::find_if(all, [&](const SharedTopic& t) { return t.topic.title == topic.title; });
      if (same == all.end()) same = all.insert(all.end(), {topic, {}});
      same->commands.emplace_back(entry.name);
    }
  }
  return all;
}

std::string options_section() {
  std::string text = section("OPTIONS");
  text += paragraph(
      "Every option can also stand in an ini file (--config), one `name = value` a line, or in the environment "
      "(--micro-batch: HESSPECT_MICRO_BATCH). The command line wins over the environment, the environment over the "
      "file, the file over the preset.");
  for (const SharedTopic& shared : all_topics()) {
    const std::string& title = shared.topic.title;
    text += ".SS " + roff(title.substr(0, title.find(" ("))) + "\n";
    std::string commands;
    for (const std::string& name : shared.commands) commands += (commands.empty() ? "" : ", ") + name;
    text += paragraph("Of " + commands + ".");
    for (const OptionText& option : shared.topic.options) text += entry_of(tag_of(option), option.full_help());
  }
  text += ".SS Ranks\n" + paragraph("Of run, before the command.");
  for (const OptionText& option : launch_topic().options) text += entry_of(tag_of(option), option.full_help());
  return text;
}

/// Of `serve` and of the commands of its queue.
std::string service_section() {
  std::string text = section("OPTIONS OF THE SERVICE AND ITS QUEUE");
  for (const CommandEntry& entry : command_entries()) {
    if (entry.home != CommandHome::kService && !is_queue_command(entry.name)) continue;
    text += ".SS " + roff(entry.name) + "\n";
    for (const OptionText& option : service_topic(entry.name).options)
      text += entry_of(tag_of(option), option.full_help());
  }
  return text;
}

std::string python_section() {
  std::string text = section("OPTIONS OF COMMANDS IN PYTHON");
  text += paragraph(
      "These commands have no variables and no ini files. What stands without -- is a file or a name, as COMMAND "
      "--help says.");
  for (const PythonCommand& command : python_commands()) {
    text += ".SS " + roff(command.name + (command.kind.empty() ? "" : " " + command.kind)) + "\n";
    for (const OptionText& option : command.options) text += entry_of(tag_of(option), option.full_help());
  }
  return text;
}

/// What differs from the defaults, line by line of the configuration.
std::string preset_lines(Preset preset) {
  RunConfig usual, config;
  config.preset = preset;
  apply_preset(config);
  config.preset = usual.preset;
  const std::string before = "\n" + to_ini(usual), after = to_ini(config);
  std::string text;
  for (std::size_t begin = 0; begin < after.size();) {
    const std::size_t end = std::min(after.find('\n', begin), after.size());
    const std::string line = after.substr(begin, end - begin);
    if (before.find("\n" + line + "\n") == std::string::npos) text += (text.empty() ? "" : ", ") + line;
    begin = end + 1;
  }
  return text;
}

std::string presets_section() {
  return section("PRESETS") + entry_of(bold("quick"), preset_lines(Preset::kQuick)) +
         entry_of(bold("standard"), "the defaults") + entry_of(bold("thorough"), preset_lines(Preset::kThorough));
}

std::string exit_section() {
  std::string text = section("EXIT STATUS");
  for (const auto& [code, meaning] :
       {std::pair("0", "done"),
        {"2", "usage: an unknown option, a missing or impossible value, a result that is there"},
        {"3", "finished, but not as good as asked for; the result says in what"},
        {"4", "bad input: a file that is missing, broken or does not fit; a value that is not finite"},
        {"5", "would not fit, or did not fit, in memory"},
        {"6", "communication failed"},
        {"70", "an internal error"},
        {"75", "stopped with a checkpoint: --resume goes on from it"}})
    text += entry_of(bold(code), meaning);
  return text;
}

}  // namespace

std::string man_page() {
  std::string text = ".\\\" Made by `hesspect man`.\n.TH HESSPECT 1 \"\" \"hesspect " HESSPECT_VERSION
                     "\" \"User Commands\"\n.nh\n.ad l\n";
  text += section("NAME") + "hesspect \\- the curvature spectrum of a trained network\n";
  text += section("SYNOPSIS") +
          ".B hesspect\n.I COMMAND\n[options]\n.br\n.B hesspect run \\-\\-ranks\n.I N COMMAND\n[options]\n";
  text +=
      section("DESCRIPTION") +
      paragraph(
          "Computes the largest and smallest eigenvalues, the trace and the spectral density of the Hessian of a "
          "network's loss, or of its Gauss-Newton or Fisher matrix, without ever forming the matrix. The model is "
          "a program that torch.export has written, with its weights; the data are arrays in an HDF5 or safetensors "
          "file; the result is one HDF5 file.");
  text += commands_section() + options_section() + service_section() + python_section() + presets_section();
  text +=
      section("SIGNALS") +
      paragraph(
          "SIGUSR1 and SIGTERM make a run write a checkpoint and stop; under `run` Ctrl-C does as well, and a second "
          "one ends the run at once.");
  text += exit_section();
  text += section("EXAMPLES") +
          example({"hesspect run -n 4 analyze --model model.pt2 --data data.h5 --loss cross_entropy --output result.h5",
                   "hesspect analyze --preset quick --config run.ini --output first.h5",
                   "hesspect report result.h5 --format html --output report.html"});
  text += section("SEE ALSO") + ".BR mpirun (1),\n.BR srun (1)\n";
  return text;
}

}  // namespace hesspect
