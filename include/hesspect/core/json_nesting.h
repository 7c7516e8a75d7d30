// Finds how deep a JSON text nests before it is parsed: the JSON library copies and prints values by recursion, so that
// a file of nothing but brackets would end the process on its stack.
#pragma once

#include <cstddef>
#include <string_view>

namespace hesspect {

/// Deeper than any file that a program writes: an exported program has about ten levels for each nested graph.
inline constexpr std::size_t kDeepestJson = 500;

/// True for a text of more than `levels` lists and objects within each other. It may be anything, JSON or not.
bool json_nests_deeper(std::string_view text, std::size_t levels = kDeepestJson);

}  // namespace hesspect
