// A landscape, and what finite steps do to the loss, in words.
#pragma once

#include <string>
#include <vector>

#include "hesspect/spectrum/landscape.h"
#include "hesspect/spectrum/measures.h"
#include "hesspect/spectrum/sharpness.h"

namespace hesspect {

/// A name of at most 15 letters and a text for each line.
std::vector<std::pair<std::string, std::string>> landscape_lines(const Landscape& landscape);
std::vector<std::pair<std::string, std::string>> sharpness_lines(const Sharpness& sharpness);
std::vector<std::pair<std::string, std::string>> quality_lines(const DataComparison& quality);

}  // namespace hesspect
