// How numbers stand in what people read.
#pragma once

#include <cstdio>
#include <string>

namespace hesspect {

/// Six significant digits.
inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

}  // namespace hesspect
