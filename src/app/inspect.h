// `hesspect inspect`: what a file holds, told by its content.
#pragma once

#include <filesystem>
#include <string>

namespace hesspect {

/// @throws InputError: no such file, or none of a .pt2, a state dict, a data file, a result
std::string inspect(const std::filesystem::path& path);

}  // namespace hesspect
