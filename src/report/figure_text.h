// Figures as words: used by all that writes them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "hesspect/report/figures.h"
#include "padded.h"
#include "rounded.h"

namespace hesspect {

/// A number to two digits of what it is known to, and to six where that is not known.
std::string rounded_text(double value, const Figure& figure);

/// "45.441373 [45.441329, 45.441417]", without brackets where the interval is not known, or "not known: why".
std::string value_text(const Figure& figure);

/// A number, or null where it is not finite.
nlohmann::ordered_json number_json(double value);
nlohmann::ordered_json figure_json(const Figure& figure);
nlohmann::ordered_json definitions_json();

/// What was run on what, in a line: matrix, loss, parameters, rows.
std::string subject_text(const RunResult& result);

}  // namespace hesspect
