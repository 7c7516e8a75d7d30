#include "ini.h"

#include <sstream>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

constexpr const char* kSpace = " \t\r";

std::string trim(const std::string& text) {
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

bool starts_comment(char c) { return c == '#' || c == ';'; }

/// The value's text: a quoted string with \" and \\ inside, or what stands before a comment.
std::string read_value(const std::string& text, const std::string& where) {
  if (text.empty() || text[0] != '"') {
    for (std::size_t i = 0; i < text.size(); ++i)
      if (starts_comment(text[i]) && (i == 0 || text[i - 1] == ' ' || text[i - 1] == '\t'))
        return trim(text.substr(0, i));
    return text;
  }
  std::string value;
  std::size_t i = 1;
  for (; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) ++i;
    value += text[i];
  }
  if (i >= text.size()) throw UsageError(where + ": the quoted value does not end");
  const std::string rest = trim(text.substr(i + 1));
  if (!rest.empty() && !starts_comment(rest[0])) throw UsageError(where + ": '" + rest + "' follows the quoted value");
  return value;
}

}  // namespace

std::vector<IniEntry> parse_ini(const std::string& text, const std::string& name) {
  std::vector<IniEntry> entries;
  std::istringstream lines(text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text);  // editors' byte-order mark
  std::string raw;
  for (int number = 1; std::getline(lines, raw); ++number) {
    const std::string line = trim(raw);
    if (line.empty() || starts_comment(line[0])) continue;
    if (line[0] == '[' && line.find(']') != std::string::npos) continue;  // a heading: names are unique without it
    const std::string where = name + ":" + std::to_string(number);
    const auto equals = line.find('=');
    if (equals == std::string::npos) throw UsageError(where + ": '" + line + "' is not of the form key = value");
    const std::string key = trim(line.substr(0, equals));
    if (key.empty()) throw UsageError(where + ": there is no key before '='");
    entries.push_back({key, read_value(trim(line.substr(equals + 1)), where), number});
  }
  return entries;
}

std::string ini_value(const std::string& value) {
  if (!value.empty() && trim(value) == value && value.find_first_of("#;\"\\") == std::string::npos) return value;
  std::string quoted = "\"";
  for (char c : value) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace hesspect
