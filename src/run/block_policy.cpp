#include <algorithm>
#include <numeric>

#include "policies.h"

namespace hesspect {

BlockPolicy::BlockPolicy(const Goals& goals) : goals_(goals), order_(goals.blocks ? goals.blocks->parts.size() : 0) {
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  std::ranges::stable_sort(order_, std::greater<>(), [&](std::size_t i) { return goals.blocks->parts[i].size(); });
}

std::optional<Task> BlockPolicy::next(const Ledger& ledger) {
  for (const std::size_t i : order_) {
    if (dealt_.contains(i) || ledger.block(goals_.blocks->parts[i].name) != nullptr) continue;
    dealt_.insert(i);
    return AnalyseBlock{static_cast<std::int64_t>(i)};
  }
  return std::nullopt;
}

bool BlockPolicy::done(const Ledger& ledger) const {
  return std::ranges::all_of(order_,
                             [&](std::size_t i) { return ledger.block(goals_.blocks->parts[i].name) != nullptr; });
}

}  // namespace hesspect
