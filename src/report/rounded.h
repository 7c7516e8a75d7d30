// Numbers with as many digits as are known.
#pragma once

#include <string>

namespace hesspect {

/// A number that is known to `width`, to two digits of that; to six where the width is not known or nothing.
/// @param scale  beside which the width is nothing where it is a trillion times less
std::string rounded_to(double value, double width, double scale);

}  // namespace hesspect
