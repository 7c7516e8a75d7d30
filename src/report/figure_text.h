// Figures as words: used by all that writes them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "hesspect/report/figures.h"

namespace hesspect {

/// A number to two digits of what it is known to, and to six where that is not known.
std::string rounded_text(double value, const Figure& figure);

/// "45.441373 [45.441329, 45.441417]", without brackets where the interval is not known, or "not known: why".
std::string value_text(const Figure& figure);

/// With spaces up to so many characters (not bytes) behind it.
std::string padded(const std::string& text, std::size_t width);
std::size_t characters(const std::string& text);

/// A number, or null where it is not finite.
nlohmann::ordered_json number_json(double value);
nlohmann::ordered_json figure_json(const Figure& figure);
nlohmann::ordered_json definitions_json();

/// What was run on what, in a line: matrix, loss, parameters, rows.
std::string subject_text(const RunResult& result);

}  // namespace hesspect
