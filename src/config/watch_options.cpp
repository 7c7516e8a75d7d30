// How a resident process is seen from outside: `serve` and `series`.
#include "hesspect/config/watch_config.h"
#include "option_groups.h"

namespace hesspect {

void add_watch_options(OptionGroup& group, WatchConfig& c) {
  group.text("metrics-file", c.metrics_file, "FILE",
             "write what is counted and measured in Prometheus' text format, every few seconds anew");
  group.integer("metrics-port", c.metrics_port, 0, 65535, "serve the same over HTTP at this port, GET /metrics; 0: no");
  group.text("metrics-address", c.metrics_address, "ADDRESS",
             "of that port; 127.0.0.1 is this machine alone, 0.0.0.0 all that reach it");
}

}  // namespace hesspect
