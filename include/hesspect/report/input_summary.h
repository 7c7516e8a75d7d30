// What is said of all rows' sharpness together: quantiles with their intervals, the most fragile rows, a text.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "hesspect/core/input_sharpness.h"

namespace hesspect {

/// Sets quantiles, with intervals of that confidence, and the most fragile rows, at most so many.
void summarise(InputSharpness& sharpness, std::size_t fragile, double confidence);

/// What is to be heeded: rows without a loss, and those whose eigenvalues are not known as well as was asked.
std::vector<std::string> input_warnings(const InputSharpness& sharpness);

/// Lines for people, as findings() has them of other results.
std::vector<std::string> input_lines(const InputSharpness& sharpness);

}  // namespace hesspect
