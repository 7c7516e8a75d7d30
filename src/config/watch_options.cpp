// How a resident process is seen from outside: `serve` and `series`.
#include "hesspect/config/watch_config.h"
#include "option_groups.h"

namespace hesspect {

OptionGroup watch_options(WatchConfig& c) {
  OptionGroup group{"Seen from outside (serve, series)", {}};
  group.text("metrics-file", c.metrics_file, "FILE",
             "write jobs, products, seconds, memory and the last figures in Prometheus' text format, again and again");
  group.integer("metrics-port", c.metrics_port, 0, 65535, "serve the same over HTTP at this port, GET /metrics; 0: no");
  group.text("metrics-address", c.metrics_address, "ADDRESS",
             "of that port; 127.0.0.1 is this machine alone, 0.0.0.0 all that reach it");
  return group;
}

}  // namespace hesspect
