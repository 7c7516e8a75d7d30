// An op's arguments by the names that its schema gives them: overloads have them in different places.
#pragma once

#include <algorithm>
#include <string_view>

#include "hesspect/tangent/rule.h"

namespace hesspect {

/// The position of the argument of that name; the number of arguments where the op has none.
inline std::size_t position_of(const Arguments& arguments, std::string_view name) {
  const auto& parameters = arguments.instruction.op->schema().arguments();
  return static_cast<std::size_t>(
      std::ranges::find_if(parameters, [&](const c10::Argument& a) { return a.name() == name; }) - parameters.begin());
}

/// The argument of that name; None where the op has none.
inline c10::IValue argument_named(const Arguments& arguments, std::string_view name) {
  const std::size_t position = position_of(arguments, name);
  return position < arguments.values.size() ? arguments.values[position] : c10::IValue();
}

}  // namespace hesspect
