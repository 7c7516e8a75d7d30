// The host that this process runs on.
#pragma once

#include <string>

namespace hesspect {

std::string host_name();

}  // namespace hesspect
