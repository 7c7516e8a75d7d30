// The manual page, made from the tables of commands and options.
#pragma once

#include <string>

namespace hesspect {

/// In roff, by the macros of man(7), ASCII alone.
std::string man_page();

}  // namespace hesspect
