// Functions of each entry alone.
#include <ATen/ATen.h>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

const RuleTable& pointwise_rules() {
  static const RuleTable rules = {};
  return rules;
}

}  // namespace hesspect
