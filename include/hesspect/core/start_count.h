// How often something has been begun without an end that was written down, and when that is enough. Services count so
// for their jobs, series for their checkpoints.
//
//   if (count.starts > 0) count.add_death(kept, is_started_anew(boot_then, this_boot()));
//   if (count.is_enough(kMostDeaths)) …                        // given up
//   ++count.starts;                                            // and written down, with this_boot(), before it begins
#pragma once

#include <cstdint>
#include <string>

namespace hesspect {

/// One start of one host. `id` is empty where it is not known.
struct Boot {
  std::string host, id;
};

/// As the kernel names it (/proc/sys/kernel/random/boot_id); the variable HESSPECT_BOOT_ID names another file, for
/// tests.
Boot this_boot();

/// Whether a host has been started anew since. False where that is not known, and of two hosts.
bool is_started_anew(const Boot& then, const Boot& now);

struct StartCount {
  static constexpr std::int64_t kMostStarts = 100;

  std::int64_t starts = 0;  // that have begun
  std::int64_t deaths = 0;  // in a row, after which no more products were kept than before
  std::int64_t kept = 0;    // products in its checkpoint, when it began last

  /// Of the process that began it last.
  /// @param kept_now   products in its checkpoint: more than then, and the deaths before are forgotten
  /// @param with_host  the host went too: that is no fault of what was begun, and the death does not count
  void add_death(std::int64_t kept_now, bool with_host);
  /// Whether it is given up: after so many deaths, or after kMostStarts, whatever they died of.
  bool is_enough(std::int64_t most_deaths) const;
};

}  // namespace hesspect
