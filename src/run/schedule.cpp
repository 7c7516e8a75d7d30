#include "schedule.h"

#include <algorithm>

namespace hesspect {

Task Schedule::next(const Ledger& ledger, int group) {
  // The Lanczos runs that are made in any case come first: probe 0's decides most of what follows.
  if (auto task = density_.next_of_least(ledger, group)) return *task;
  if (auto task = eigen_.next(ledger, group)) return *task;
  if (auto task = trace_.next(ledger, group)) return *task;
  // Further runs for the density take the place of probe 0's basis: only when it is not needed any more.
  if (group != 0 || trace_.sampled_enough(ledger))
    if (auto task = density_.next(ledger, group)) return *task;
  // Blocks come last: a group is away for the whole of one, and group 0 gives up probe 0's basis for it.
  if (group != 0 || trace_.done(ledger))
    if (auto task = blocks_.next(ledger)) return *task;
  if (done(ledger)) return Done{};
  return Wait{};
}

ProductRange Schedule::expected(const Ledger& ledger) const {
  ProductRange range{kSymmetryProbes, kSymmetryProbes};
  range += density_.expected(ledger);
  range += eigen_.expected(ledger);
  range += trace_.expected(ledger);
  const std::int64_t taken = ledger.products();
  const std::int64_t allowed = goals_.max_products > 0 ? std::max(taken, goals_.max_products) : range.most;
  range.most = std::max(taken, std::min(range.most, allowed));
  range.least = std::clamp(range.least, taken, range.most);
  range += blocks_.expected(ledger);
  return range;
}

}  // namespace hesspect
