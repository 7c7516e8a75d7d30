// Convolutions of one to three dimensions, transposed ones too.
#include <ATen/ATen.h>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

const RuleTable& convolution_rules() {
  static const RuleTable rules = {};
  return rules;
}

}  // namespace hesspect
