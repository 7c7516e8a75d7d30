// The names of a checkpoint folder's files: what is hesspect's own there, and what it is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace hesspect::checkpoint {

inline constexpr const char* kLock = "lock";

/// A path in quotes for a message, on one line.
std::string named(const std::filesystem::path& path);

// A number's name, and the number of a name: nothing for a name of another kind.
std::string run_name(std::int64_t generation);
std::optional<std::int64_t> run_generation(const std::string& name);
std::string probe_name(std::int64_t probe);
std::optional<std::int64_t> probe_number(const std::string& name);
std::string manifest_name(std::int64_t steps);
std::optional<std::int64_t> manifest_steps(const std::string& name);

/// A piece's name up to its digest: "basis-000000-000041.rank-0002-of-0004".
std::string piece_stem(const std::string& set, std::int64_t first_row, std::int64_t rows, int rank, int ranks);
bool is_piece(const std::string& name);
/// Of any of these, under its temporary name (temporary_file.h).
bool is_temporary(const std::string& name);

/// Names in a folder, sorted; none where there is no such folder.
/// @throws InputError where it is no folder or cannot be listed
std::vector<std::string> names_in(const std::filesystem::path& folder);
/// The numbers of the names of one kind, ascending.
std::vector<std::int64_t> numbers_in(const std::filesystem::path& folder,
                                     std::optional<std::int64_t> (*number_of)(const std::string&));

}  // namespace hesspect::checkpoint
