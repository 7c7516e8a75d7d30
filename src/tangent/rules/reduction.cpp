// Sums, means and the like.
#include <ATen/ATen.h>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

const RuleTable& reduction_rules() {
  static const RuleTable rules = {};
  return rules;
}

}  // namespace hesspect
