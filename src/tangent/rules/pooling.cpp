// Max and average pooling.
#include <ATen/ATen.h>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

const RuleTable& pooling_rules() {
  static const RuleTable rules = {};
  return rules;
}

}  // namespace hesspect
