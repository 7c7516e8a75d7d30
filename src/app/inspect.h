// `hesspect inspect`: what a file holds, told by its content.
#pragma once

#include <filesystem>
#include <string>

#include "hesspect/io/result_file.h"

namespace hesspect {

/// @throws InputError: no such file, or none of a .pt2, a checkpoint, a data file, a result
std::string inspect(const std::filesystem::path& path);

/// A result in a page: what was run, the figures, the density.
std::string inspect_result(const RunResult& result);

/// The density over λ as text, log scale, one row a decade.
std::string plot_density(const Density& density);

}  // namespace hesspect
