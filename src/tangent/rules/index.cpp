// Embeddings, gathers and scatters.
#include <ATen/ATen.h>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

const RuleTable& index_rules() {
  static const RuleTable rules = {};
  return rules;
}

}  // namespace hesspect
