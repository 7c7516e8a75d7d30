// Layer, RMS, group and eval-mode batch norm.
#include <ATen/ATen.h>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

const RuleTable& norm_rules() {
  static const RuleTable rules = {};
  return rules;
}

}  // namespace hesspect
