// A landscape in words.
#pragma once

#include <string>
#include <vector>

#include "hesspect/spectrum/landscape.h"

namespace hesspect {

/// A name of at most 15 letters and a text for each line.
std::vector<std::pair<std::string, std::string>> landscape_lines(const Landscape& landscape);

}  // namespace hesspect
