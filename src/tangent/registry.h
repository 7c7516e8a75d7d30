// Which rule differentiates which op.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hesspect/tangent/rule.h"

namespace hesspect {

struct RuleEntry {
  std::vector<std::string_view> ops;  // names without namespace: "linear"; "add.Tensor" where only that overload
  MakeRun make;
};

using RuleTable = std::vector<RuleEntry>;

// One table a file of src/tangent/rules.
const RuleTable& matrix_rules();
const RuleTable& view_rules();
const RuleTable& arithmetic_rules();
const RuleTable& pointwise_rules();
const RuleTable& norm_rules();
const RuleTable& channel_norm_rules();
const RuleTable& softmax_rules();
const RuleTable& attention_rules();
const RuleTable& convolution_rules();
const RuleTable& pooling_rules();
const RuleTable& index_rules();
const RuleTable& row_rules();
const RuleTable& reduction_rules();

/// The rule of a node's op; nullptr where there is none.
MakeRun rule_for(const Instruction& instruction);

/// A run of any op by LibTorch's autograd, that op alone. Double-vjp trick: J x_dot is the derivative of Jᵀu in u,
/// applied to x_dot.
std::unique_ptr<NodeRun> fallback(Arguments& arguments);

/// A rule of the usual shape: refuses what `covers` does, and is made from the arguments.
template <class Rule>
std::unique_ptr<NodeRun> make_rule(Arguments& arguments) {
  if (!Rule::covers(arguments)) return nullptr;
  return std::make_unique<Rule>(std::move(arguments));
}

}  // namespace hesspect
