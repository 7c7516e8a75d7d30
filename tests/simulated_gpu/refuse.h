#pragma once

#include <string>

namespace simulated_gpu {

/// Ends the program with a line.
[[noreturn]] void refuse(const std::string& what);

}  // namespace simulated_gpu
