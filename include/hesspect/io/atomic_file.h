// Files that are there whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace hesspect {

/// Writes to a temporary name in the same folder, syncs, renames over `path`, syncs the folder. Where `path` is a
/// symbolic link, all that happens to its target.
/// @throws InputError with the system's reason; the temporary file is removed, and `path` is as it was
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// Checks before a run that its output can be written at its end, by making and removing a file in the folder.
/// @throws InputError: no such folder, not a folder, no permission, `path` is a folder, device or pipe
///         UsageError where the file exists and `overwrite` is false
void check_output(const std::filesystem::path& path, bool overwrite);

}  // namespace hesspect
