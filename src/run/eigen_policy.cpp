#include <algorithm>

#include "policies.h"

namespace hesspect {

std::optional<Task> EigenPolicy::next(const Ledger& ledger, int group) {
  if (group != 0 || dealt_ || done(ledger)) return std::nullopt;
  dealt_ = true;
  return SolveEigen{};
}

ProductRange EigenPolicy::expected(const Ledger& ledger) const {
  if (!goals_.eigen) return {};
  const std::int64_t residuals = goals_.eigen->true_residuals ? std::min(goals_.eigen->wanted(), goals_.n) : 0;
  if (!own_run()) {
    if (ledger.finished(0) != nullptr) return {};
    const std::int64_t second = goals_.eigen->second_pass ? 1 : 0;
    return {residuals + second * std::max<std::int64_t>(0, std::min(goals_.eigen->wanted(), goals_.n) - 1),
            residuals + second * std::max<std::int64_t>(0, goals_.most_steps - 1)};
  }
  if (const auto& found = ledger.eigenvalues()) {
    const std::int64_t taken = found->steps + found->residual_products;
    return {taken, taken};
  }
  return {std::min(goals_.eigen->wanted(), goals_.n) + residuals, goals_.most_steps + residuals};
}

}  // namespace hesspect
