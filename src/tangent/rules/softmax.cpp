// Softmax and log-softmax.
#include <ATen/ATen.h>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

const RuleTable& softmax_rules() {
  static const RuleTable rules = {};
  return rules;
}

}  // namespace hesspect
