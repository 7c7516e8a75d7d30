// The lines of a plan's text.
#pragma once

#include <cstdint>
#include <string>

namespace hesspect::plan_lines {

/// "1 row", "3 rows".
std::string counted(std::int64_t count, const std::string& thing);

/// A line as of the summary of a run: the label in a column of its own.
std::string line(const std::string& label, const std::string& text);

/// A line of the table of bytes.
std::string row(const std::string& kind, std::int64_t bytes);

}  // namespace hesspect::plan_lines
