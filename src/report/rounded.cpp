#include "rounded.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "hesspect/core/text.h"

namespace hesspect {

std::string rounded_to(double value, double width, double scale) {
  if (!std::isfinite(width) || !std::isfinite(value) || !(width > 1e-12 * scale)) return format_number(value);
  const double unit = std::pow(10.0, std::floor(std::log10(width)) - 1);
  const double rounded = std::round(value / unit) * unit;
  const double digits = rounded == 0 ? 1 : std::floor(std::log10(std::abs(rounded)) - std::log10(unit) + 1e-9) + 1;
  char text[40];
  std::snprintf(text, sizeof text, "%.*g", static_cast<int>(std::max(1.0, digits)), rounded);
  double whole = 0;  // 1.1e+02 is 110
  if (std::abs(rounded) < 1e6 && std::abs(rounded) >= 1 && std::string_view(text).find('e') != std::string_view::npos &&
      std::modf(rounded, &whole) < 1e-9)
    return std::to_string(static_cast<std::int64_t>(std::llround(rounded)));
  return text;
}

}  // namespace hesspect
