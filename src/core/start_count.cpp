#include "hesspect/core/start_count.h"

#include <cstdlib>
#include <fstream>

#include "hesspect/core/host.h"

namespace hesspect {

Boot this_boot() {
  const char* const file = std::getenv("HESSPECT_BOOT_ID");
  Boot boot{host_name(), ""};
  std::ifstream in(file != nullptr ? file : "/proc/sys/kernel/random/boot_id");
  std::getline(in, boot.id);
  return boot;
}

bool is_started_anew(const Boot& then, const Boot& now) {
  return then.host == now.host && !then.id.empty() && !now.id.empty() && then.id != now.id;
}

void StartCount::add_death(std::int64_t kept_now, bool with_host) {
  if (kept_now > kept)
    deaths = 0;
  else if (!with_host)
    ++deaths;
  kept = kept_now;
}

bool StartCount::is_enough(std::int64_t most_deaths) const { return deaths >= most_deaths || starts >= kMostStarts; }

}  // namespace hesspect
