#include <algorithm>

#include "policies.h"

namespace hesspect {

BlockPolicy::BlockPolicy(const Goals& goals)
    : goals_(goals), order_(goals.blocks ? blocks_in_turn(*goals.blocks) : std::vector<std::size_t>()) {}

std::optional<Task> BlockPolicy::next(const Ledger& ledger) {
  for (const std::size_t i : order_) {
    if (dealt_.contains(i) || ledger.block(goals_.blocks->parts[i].name) != nullptr) continue;
    dealt_.insert(i);
    return AnalyseBlock{static_cast<std::int64_t>(i)};
  }
  return std::nullopt;
}

ProductRange BlockPolicy::expected(const Ledger& ledger) const {
  ProductRange range;
  for (const std::size_t i : order_) {
    const Part& part = goals_.blocks->parts[i];
    const FinishedBlock* finished = ledger.block(part.name);
    range += finished != nullptr ? ProductRange{products_of(*finished), products_of(*finished)}
                                 : products_with_block(goals_, part.size());
  }
  return range;
}

bool BlockPolicy::done(const Ledger& ledger) const {
  return std::ranges::all_of(order_,
                             [&](std::size_t i) { return ledger.block(goals_.blocks->parts[i].name) != nullptr; });
}

}  // namespace hesspect
