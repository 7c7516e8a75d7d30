// Reading small files and folders of a spool.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace hesspect {

/// In no order; none where the folder can't be read.
std::vector<std::string> names_in(const std::filesystem::path& folder, std::size_t most);

/// The first 64 KiB of a file that is no symbolic link; none where it can't be read.
std::optional<std::string> small_text(const std::filesystem::path& file);

}  // namespace hesspect
