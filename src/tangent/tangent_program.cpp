#include "hesspect/tangent/tangent_program.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

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

/// By its name, as "aten.linear.default".
bool is_matrix_product(const std::string& name) {
  static const std::set<std::string> ops = {
      "linear", "mm",     "addmm",  "bmm",         "baddbmm",          "matmul",           "einsum",          "mv",
      "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"};
  const std::size_t begin = name.find('.') + 1;  // npos + 1 = 0
  return ops.contains(name.substr(begin, name.find('.', begin) - begin));
}

}  // namespace

TangentProgram::Impl::Impl(const Program& the_program, const std::vector<std::size_t>& outputs)
    : program(the_program), list(node_list(the_program, outputs)) {
  for (const Node& node : list.nodes) rules.push_back(node.active() ? rule_for(*node.instruction) : FoundRule{});
  if (list.kept.front().kind == Operand::Kind::kSlot) output = list.kept.front().slot;
  linear_head = find_linear_head(list, output);
  seconds.resize(list.nodes.size() + 1);
  turned_down.resize(list.nodes.size());
  for (const Node& node : list.nodes) names.push_back(short_name(*node.instruction));
  names.push_back("head");
}

Frame TangentProgram::Impl::first_values(const std::vector<at::Tensor>& inputs) const {
  Frame frame(index(list.slots));
  std::vector<c10::IValue> given = program.graph_inputs(inputs);
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (given[i].isTensor()) given[i] = given[i].toTensor().detach();
    frame[index(list.inputs[i])] = std::move(given[i]);
  }
  return frame;
}

TangentProgram::TangentProgram(const Program& program, std::vector<std::size_t> outputs)
    : impl_(std::make_unique<Impl>(program, outputs)) {}
TangentProgram::~TangentProgram() = default;

const Program& TangentProgram::program() const { return impl_->program; }

bool TangentProgram::depends_on_parameters() const {
  return impl_->output >= 0 && impl_->list.active[index(impl_->output)];
}

bool TangentProgram::uses_fallback() const {
  for (std::size_t n = 0; n < impl_->list.nodes.size(); ++n)
    if (impl_->is_left(n)) return true;
  return false;
}

bool TangentProgram::leaves_to_autograd(const Instruction& instruction) const {
  bool found = false;
  for (std::size_t n = 0; n < impl_->list.nodes.size(); ++n) {
    if (impl_->list.nodes[n].instruction != &instruction) continue;
    found = true;
    if (impl_->is_left(n)) return true;
  }
  // Those inside a region that autograd has as a whole are no nodes of their own.
  return !found && !impl_->list.unneeded.contains(&instruction);
}

std::vector<OpSeconds> TangentProgram::seconds() const {
  std::map<std::pair<std::string, bool>, OpSeconds> by_op;
  for (std::size_t n = 0; n < impl_->seconds.size(); ++n) {
    const bool own = n == impl_->list.nodes.size() || !impl_->is_left(n);
    const std::string& name = impl_->names[n];
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

SweepSeconds TangentProgram::sweep_seconds() const {
  SweepSeconds all;
  for (std::size_t n = 0; n < impl_->seconds.size(); ++n) {
    const auto& [value, tangent, adjoint, adjoint_tangent] = impl_->seconds[n];
    all.value_s += value;
    all.tangent_s += tangent;
    all.adjoint_s += adjoint;
    all.adjoint_tangent_s += adjoint_tangent;
    const bool is_layer = n == impl_->list.nodes.size() ? impl_->linear_head >= 0 : is_matrix_product(impl_->names[n]);
    if (is_layer) all.matrix_products_s += value + tangent + adjoint + adjoint_tangent;
  }
  return all;
}

void TangentProgram::record_in(Timeline* timeline) const { impl_->timeline = timeline; }

std::size_t TangentProgram::nodes() const { return impl_->list.nodes.size(); }

bool TangentProgram::may_cut(std::size_t p) const { return p > 0 && p < nodes() && !impl_->list.uncut.contains(p); }

std::vector<RuleCount> TangentProgram::rules() const {
  std::map<std::pair<std::string, bool>, std::int64_t> counts;
  for (std::size_t n = 0; n < impl_->list.nodes.size(); ++n) {
    const Node& node = impl_->list.nodes[n];
    if (!node.active()) continue;
    ++counts[{impl_->names[n], !impl_->is_left(n)}];
  }
  std::vector<RuleCount> rules;
  for (const auto& [key, count] : counts) rules.push_back({key.first, count, key.second});
  return rules;
}

}  // namespace hesspect
