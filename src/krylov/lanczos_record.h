// The rules that a LanczosRecord keeps.
#pragma once

#include <string>

#include "hesspect/krylov/lanczos.h"

namespace hesspect {

/// What is wrong with a record in itself; empty where nothing is.
std::string flaw_of(const LanczosRecord& record);

}  // namespace hesspect
