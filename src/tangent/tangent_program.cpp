#include "hesspect/tangent/tangent_program.h"

#include <algorithm>
#include <functional>
#include <map>

#include "head.h"
#include "program_impl.h"
#include "registry.h"

namespace hesspect {
namespace {

/// The last node where only the objective reads what it makes, and it is a linear layer; else -1.
int find_linear_head(const NodeList& list, int output) {
  if (output < 0 || list.nodes.empty()) return -1;
  int maker = -1;
  for (std::size_t n = 0; n < list.nodes.size(); ++n) {
    for (const int slot : list.nodes[n].outputs)
      if (slot == output) maker = static_cast<int>(n);
    for (const Operand& operand : list.nodes[n].operands) {
      bool reads = false;
      for_each_slot(operand, [&](int slot) { reads = reads || slot == output; });
      if (reads) return -1;
    }
  }
  for (std::size_t i = 1; i < list.kept.size(); ++i)
    if (list.kept[i].slot == output) return -1;
  if (maker < 0) return -1;
  const Node& node = list.nodes[static_cast<std::size_t>(maker)];
  return node.active() && !node.op && is_linear_layer(*node.instruction) ? maker : -1;
}

std::string short_name(const Instruction& instruction) {
  const std::string& target = instruction.origin.target;
  return target.starts_with("torch.ops.") ? target.substr(10) : target;
}

}  // namespace

TangentProgram::Impl::Impl(const Program& the_program, const std::vector<std::size_t>& outputs)
    : program(the_program), list(node_list(the_program, outputs)) {
  for (const Node& node : list.nodes) rules.push_back(node.active() ? rule_for(*node.instruction) : FoundRule{});
  if (list.kept.front().kind == Operand::Kind::kSlot) output = list.kept.front().slot;
  linear_head = find_linear_head(list, output);
  seconds.resize(list.nodes.size() + 1);
  turned_down.resize(list.nodes.size());
}

TangentProgram::TangentProgram(const Program& program, std::vector<std::size_t> outputs)
    : impl_(std::make_unique<Impl>(program, outputs)) {}
TangentProgram::~TangentProgram() = default;

const Program& TangentProgram::program() const { return impl_->program; }

bool TangentProgram::uses_fallback() const {
  for (std::size_t n = 0; n < impl_->list.nodes.size(); ++n)
    if (impl_->list.nodes[n].active() && (impl_->rules[n].make == nullptr || impl_->turned_down[n])) return true;
  return false;
}

bool TangentProgram::leaves_to_autograd(const Instruction& instruction) const {
  bool found = false;
  for (std::size_t n = 0; n < impl_->list.nodes.size(); ++n) {
    const Node& node = impl_->list.nodes[n];
    if (node.instruction != &instruction) continue;
    found = true;
    if (node.active() && (impl_->rules[n].make == nullptr || impl_->turned_down[n])) return true;
  }
  return !found;
}

std::vector<OpSeconds> TangentProgram::seconds() const {
  std::map<std::pair<std::string, bool>, OpSeconds> by_op;
  for (std::size_t n = 0; n < impl_->seconds.size(); ++n) {
    const bool is_head = n == impl_->list.nodes.size();
    const bool own = is_head || !impl_->list.nodes[n].active() || impl_->rules[n].make != nullptr;
    const std::string name = is_head ? "head" : short_name(*impl_->list.nodes[n].instruction);
    OpSeconds& op = by_op[{name, own}];
    op.op = name;
    op.own = own;
    op.value_s += impl_->seconds[n][0];
    op.tangent_s += impl_->seconds[n][1];
    op.adjoint_s += impl_->seconds[n][2];
    op.adjoint_tangent_s += impl_->seconds[n][3];
  }
  std::vector<OpSeconds> ops;
  for (const auto& [key, op] : by_op) ops.push_back(op);
  std::ranges::sort(ops, std::greater<>(), &OpSeconds::total_s);
  return ops;
}

std::size_t TangentProgram::nodes() const { return impl_->list.nodes.size(); }

bool TangentProgram::may_cut(std::size_t p) const { return p > 0 && p < nodes() && !impl_->list.uncut.contains(p); }

std::vector<RuleCount> TangentProgram::rules() const {
  std::map<std::pair<std::string, bool>, std::int64_t> counts;
  for (std::size_t n = 0; n < impl_->list.nodes.size(); ++n) {
    const Node& node = impl_->list.nodes[n];
    if (!node.active()) continue;
    ++counts[{short_name(*node.instruction), impl_->rules[n].make != nullptr}];
  }
  std::vector<RuleCount> rules;
  for (const auto& [key, count] : counts) rules.push_back({key.first, count, key.second});
  return rules;
}

}  // namespace hesspect
