// Reads the exceptions of libraries, LibTorch's above all, by their text, so that no room needs their headers.
#pragma once

#include <exception>
#include <string>

namespace hesspect {

/// Whether an allocation of host or GPU memory failed, which LibTorch mostly says by its text alone.
bool is_allocation_failure(const std::exception& error);

/// The first line of what(), cut to 300 characters: no backtrace, no table of dispatch keys.
std::string first_line(const std::exception& error);

}  // namespace hesspect
