// How a resident process (`serve`, `series`) is seen from outside.
#pragma once

#include <cstdint>
#include <string>

namespace hesspect {

struct WatchConfig {
  std::string metrics_file;                   // in Prometheus' text format; empty: none
  std::int64_t metrics_port = 0;              // where they are served over HTTP; 0: nowhere
  std::string metrics_address = "127.0.0.1";  // this machine alone
};

}  // namespace hesspect
