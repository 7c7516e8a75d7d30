// A series file as a table for people.
#pragma once

#include <filesystem>
#include <string>

namespace hesspect {

/// A line for each checkpoint (step, largest eigenvalue, trace and its change, overlap, products), then what the ledger
/// beside the file tells of those that are not in it. @throws InputError: not a series, or broken
std::string series_text(const std::filesystem::path& file);

}  // namespace hesspect
