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

/// Makes renames and removals in a folder durable, where the file system can do that.
void sync_folder(const std::filesystem::path& folder);

/// Makes a folder that is not there, with those above it, durably. @throws InputError with the system's reason
void make_folders(const std::filesystem::path& folder);

/// Checks before a run that its output can be written at its end, by making and removing a file in the folder.
/// @throws InputError: no such folder, not a folder, no permission, `path` is a folder, device or pipe
///         UsageError where the file exists and `overwrite` is false
void check_output(const std::filesystem::path& path, bool overwrite);

}  // namespace hesspect
