// The host that this process runs on.
#pragma once

#include <unistd.h>

#include <string>

namespace hesspect {

inline std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace hesspect
