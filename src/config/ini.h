// The ini dialect of the config files: `key = value` lines, comments from '#' or ';', sections tolerated as headings.
#pragma once

#include <string>
#include <vector>

namespace hesspect {

struct IniEntry {
  std::string key;
  std::string value;
  int line = 0;  // from 1
};

/// @param name  the file's name, for messages
/// @throws UsageError naming file and line: neither key = value, nor section, nor comment
std::vector<IniEntry> parse_ini(const std::string& text, const std::string& name);

/// A value as parse_ini reads it back: quoted where it must be.
std::string ini_value(const std::string& value);

}  // namespace hesspect
