// Small text helpers for one-line messages: near-name suggestions, human-readable sizes and times.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hesspect {

/// The candidate with the least edit distance to `word`, if it is near enough to be a likely slip of the pen.
std::optional<std::string> nearest_name(std::string_view word, const std::vector<std::string>& candidates);

/// " (did you mean 'x'?)" or an empty string; for the end of an error line.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

/// 'text' in single quotes for a message: control characters escaped, long text cut. Names that come out of a file are
/// printed through this, so that no file can break the line or steer a terminal.
std::string quote(std::string_view text);
/// The same without quotes: one line, control characters escaped, not cut.
std::string one_line(std::string_view text);

/// Six significant digits: "0.1", "1.23457e-05"
std::string format_number(double value);
/// "1.50 GiB"
std::string format_bytes(std::int64_t bytes);
/// "1h02m", "3m20s", "12.3 s"
std::string format_duration(double seconds);
/// "[3, 5]"
std::string format_shape(const std::vector<std::int64_t>& shape);
/// "22 713 986" style thousands separated by commas: "22,713,986"
std::string format_count(std::int64_t count);
/// At most `limit` names, comma-separated, then "… (+N more)".
std::string format_names(const std::vector<std::string>& names, std::size_t limit = 8);

}  // namespace hesspect
