// Scaled dot product attention, by blocks of rows.
#include <ATen/ATen.h>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

const RuleTable& attention_rules() {
  static const RuleTable rules = {};
  return rules;
}

}  // namespace hesspect
