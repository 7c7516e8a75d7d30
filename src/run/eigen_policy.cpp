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
  if (!own_run()) return ledger.finished(0) != nullptr ? ProductRange{} : ProductRange{residuals, residuals};
  if (const auto& found = ledger.eigenvalues()) {
    const std::int64_t taken = found->steps + found->residual_products;
    return {taken, taken};
  }
  return {std::min(goals_.eigen->wanted(), goals_.n) + residuals, goals_.most_steps + residuals};
}

}  // namespace hesspect
