#include "hesspect/tangent/program_cost.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>
#include <set>

#include "hesspect/core/errors.h"
#include "hesspect/model/executor.h"
#include "program_impl.h"
#include "shape_forms.h"

namespace hesspect {
namespace {

/// Attention's rule keeps the probabilities up to this size (rules/attention.cpp).
constexpr std::int64_t kKeptScoresBytes = std::int64_t{64} << 20;

/// Of the tensor's shape, strides and type, without memory.
at::Tensor on_meta(const at::Tensor& t) {
  if (!t.defined() || t.is_meta()) return t;
  at::Tensor shape = at::empty_strided(t.sizes(), t.strides(), t.options().device(at::kMeta));
  if (t.unsafeGetTensorImpl()->is_wrapped_number()) shape.unsafeGetTensorImpl()->set_wrapped_number(true);
  return shape;
}

c10::IValue on_meta(const c10::IValue& value) {
  if (value.isTensor()) return on_meta(value.toTensor());
  if (value.isDevice()) return at::Device(at::kMeta);
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& t : value.toTensorVector()) list.push_back(on_meta(t));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& t : value.toOptionalTensorVector())
      list.push_back(t ? std::optional(on_meta(*t)) : std::nullopt);
    return list;
  }
  return value;
}

/// "linear" of "aten.linear.default".
std::string base_name(const std::string& op) {
  const std::size_t begin = op.find('.') + 1;  // npos + 1 = 0
  return op.substr(begin, op.find('.', begin) - begin);
}

/// FLOPs of matrix products, from the arguments' shapes and the output's.
/// @param y           undefined where a linear layer was not run
/// @param transposed  of a convolution: entries of the input, not of the output, each meet all of a filter
double matrix_flops(const std::string& name, const std::vector<at::Tensor>& given, const at::Tensor& y,
                    bool transposed) {
  const auto numel = [](const at::Tensor& t) { return static_cast<double>(t.numel()); };
  const auto size = [](const at::Tensor& t, std::int64_t d) { return static_cast<double>(t.size(d)); };
  const auto product = [&](const at::Tensor& a, const at::Tensor& b) {  // […, m, k] [k, n], or batches [b, k, n]
    return 2 * numel(a) * (b.dim() == 1 ? 1 : size(b, -1));
  };
  if (name == "linear") return 2 * numel(given.at(0)) * (given.at(1).dim() == 1 ? 1 : size(given.at(1), 0));
  if (name == "mm" || name == "bmm" || name == "mv") return product(given.at(0), given.at(1));
  if (name == "addmm" || name == "baddbmm") return product(given.at(1), given.at(2));
  // Batch dimensions may be broadcast: by the output, whose entries are sums over the last dimension of a.
  if (name == "matmul") return 2 * (y.defined() ? numel(y) * size(given.at(0), -1) : product(given[0], given.at(1)));
  if (name == "scaled_dot_product_attention") {
    const at::Tensor &q = given.at(0), &k = given.at(1), &v = given.at(2);
    return 2 * numel(q) / size(q, -1) * size(k, -2) * (size(q, -1) + size(v, -1));
  }
  if (name.starts_with("conv")) {
    const at::Tensor &x = given.at(0), &weight = given.at(1);
    return 2 * (transposed ? numel(x) : numel(y)) * numel(weight) / size(weight, 0);
  }
  return 0;
}

bool has_matrix_products(const std::string& name) {
  static const std::set<std::string> ops = {"linear",
                                            "mm",
                                            "bmm",
                                            "mv",
                                            "addmm",
                                            "baddbmm",
                                            "matmul",
                                            "scaled_dot_product_attention",
                                            "conv1d",
                                            "conv2d",
                                            "conv3d",
                                            "convolution",
                                            "conv_transpose1d",
                                            "conv_transpose2d",
                                            "conv_transpose3d"};
  return ops.contains(name);
}

/// Whether any of a region's ops has matrix products.
bool has_matrix_products(const Graph& graph) {
  return std::ranges::any_of(graph.instructions, [](const Instruction& inner) {
    const std::string& target = inner.origin.target;
    return (inner.op &&
            has_matrix_products(base_name(target.starts_with("torch.ops.") ? target.substr(10) : target))) ||
           (inner.subgraph && has_matrix_products(*inner.subgraph));
  });
}

class Walk {
 public:
  Walk(const TangentProgram::Impl& program, CostRun run)
      : program_(program), list_(program.list), run_(run), viewed_(index(list_.slots)), value_of_(index(list_.slots)) {}

  ProgramCost over(const std::vector<at::Tensor>& inputs) {
    const at::NoGradGuard no_grad;
    const DefaultDtypeScope default_dtype(program_.program.default_dtype());
    note_parameters();
    Frame frame = first_values(inputs);
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      const Node& node = list_.nodes[n];
      NodeCost& cost = cost_.nodes.emplace_back();
      cost.op = program_.names[n];
      cost.active = node.active();
      cost.is_head = static_cast<int>(n) == program_.linear_head;
      cost.may_cut = n > 0 && !list_.uncut.contains(n);
      note_reads(n);
      try {
        at(n, frame);
      } catch (const c10::NotImplementedError& e) {
        fail(node.instruction->origin, e.what());
      } catch (...) {
        rethrow_for(node.instruction->origin, program_.program.where());
      }
      for (const int slot : node.dead) frame[index(slot)] = c10::IValue();
    }
    return std::move(cost_);
  }

 private:
  /// @param why  LibTorch's complaint: "Could not run 'aten::nonzero' with …"
  [[noreturn]] void fail(const Origin& origin, const std::string& why) const {
    const std::size_t begin = why.find('\''), end = why.find('\'', begin + 1);
    const std::string op = end != why.npos ? " (" + why.substr(begin + 1, end - begin - 1) + ")" : "";
    throw InputError(program_.program.where() + origin.describe() +
                     ": the shape of what it gives is not known without values" + op);
  }

  void note_parameters() {
    const std::size_t in_layout = program_.program.layout().entries().size();
    for (std::size_t p = 0; p < program_.program.brought_count(); ++p) {
      const ParameterEntry& entry = program_.program.brought(p);
      // The entry counts a complex number as two reals.
      const auto stored = static_cast<std::int64_t>(c10::elementSize(c10::toRealValueType(entry.stored_dtype)));
      const auto run = static_cast<std::int64_t>(c10::elementSize(program_.program.options().dtype));
      const std::int64_t run_bytes = entry.numel * run;
      cost_.parameters.push_back({entry.numel, entry.numel * stored, run_bytes, p < in_layout ? run_bytes : 0});
    }
    const auto parameters = program_.program.brought_inputs();
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i]) viewed_[index(list_.inputs[i])] = {*parameters[i]};
  }

  Frame first_values(const std::vector<at::Tensor>& inputs) const {
    Frame frame = program_.first_values(inputs);
    if (run_ == CostRun::kShapes)
      for (const int slot : list_.inputs) frame[index(slot)] = on_meta(frame[index(slot)]);
    return frame;
  }

  void note_reads(std::size_t n) {
    std::set<std::size_t> parameters;
    for (const Operand& operand : list_.nodes[n].operands)
      for_each_slot(operand, [&](int slot) {
        parameters.insert(viewed_[index(slot)].begin(), viewed_[index(slot)].end());
        if (value_of_[index(slot)]) cost_.values[*value_of_[index(slot)]].last_read = n;
      });
    cost_.nodes[n].parameters.assign(parameters.begin(), parameters.end());
  }

  /// A tensor among a node's arguments, and the slot that it came from.
  struct Given {
    at::Tensor tensor;
    int slot = -1;
  };

  static void add_given(const Operand& operand, const c10::IValue& value, std::vector<Given>& given) {
    if (value.isTensor()) given.push_back({value.toTensor(), operand.slot});
    if (value.isTensorList()) {
      const std::vector<at::Tensor> items = value.toTensorVector();
      for (std::size_t i = 0; i < items.size(); ++i)
        given.push_back({items[i], i < operand.items.size() ? operand.items[i].slot : operand.slot});
    }
  }

  void at(std::size_t n, Frame& frame) {
    const Node& node = list_.nodes[n];
    std::vector<c10::IValue> stack;
    std::vector<Given> given;
    for (const Operand& operand : node.operands) {
      stack.push_back(materialise(operand, frame));
      if (run_ == CostRun::kShapes) stack.back() = on_meta(stack.back());
      add_given(operand, stack.back(), given);
    }
    const bool is_run = run_ == CostRun::kShapes || !cost_.nodes[n].is_head;
    if (is_run && run_ == CostRun::kShapes && node.instruction->kind == Instruction::Kind::kSubgraph)
      run_region(*node.instruction, stack);
    else if (is_run)
      Arguments{*node.instruction, node.sources, {}, node.op ? &*node.op : nullptr}.call(stack);
    if (!is_run) stack.clear();
    if (node.instruction->spreads_list && is_run) {
      const std::vector<at::Tensor> tensors = stack.at(0).toTensorVector();
      stack.assign(tensors.begin(), tensors.end());
      if (stack.size() < node.outputs.size())
        throw InputError("returned " + std::to_string(stack.size()) + " tensors where the program was exported with " +
                         std::to_string(node.outputs.size()));
    }
    if (run_ == CostRun::kShapes)
      std::ranges::transform(stack, stack.begin(), [](const auto& v) { return on_meta(v); });
    count_products(n, given, stack);
    for (std::size_t i = 0; i < node.outputs.size(); ++i)
      if (node.outputs[i] >= 0) note(n, node.outputs[i], i < stack.size() ? stack[i] : c10::IValue(), given, frame);
  }

  /// A region over shapes: what its nodes say of devices must not be heeded.
  void run_region(const Instruction& region, std::vector<c10::IValue>& stack) const {
    Frame frame = first_frame(*region.subgraph, std::move(stack));
    for (const Instruction& instruction : region.subgraph->instructions) {
      std::vector<c10::IValue> values = operand_values(instruction, frame);
      for (c10::IValue& value : values) value = on_meta(value);
      if (instruction.kind == Instruction::Kind::kSubgraph)
        run_region(instruction, values);
      else
        call(instruction, values, program_.program.where());
      store_outputs(instruction, values, frame);
    }
    stack.clear();
    for (const Operand& output : region.subgraph->outputs) stack.push_back(materialise(output, frame));
  }

  void count_products(std::size_t n, const std::vector<Given>& given, const std::vector<c10::IValue>& returned) {
    NodeCost& cost = cost_.nodes[n];
    const std::string name = base_name(cost.op);
    const Instruction& instruction = *list_.nodes[n].instruction;
    const bool is_op = instruction.kind == Instruction::Kind::kDispatch;
    if (!is_op || !has_matrix_products(name)) {
      const bool inside = instruction.subgraph && has_matrix_products(*instruction.subgraph);
      if ((inside || name == "einsum") && std::ranges::find(cost_.uncounted, cost.op) == cost_.uncounted.end())
        cost_.uncounted.push_back(cost.op);
      return;
    }
    std::vector<at::Tensor> tensors;
    for (const Given& one : given) tensors.push_back(one.tensor);
    const bool has_y = !returned.empty() && returned[0].isTensor();
    const std::vector<Operand>& operands = list_.nodes[n].operands;
    const bool transposed = name == "convolution" ? operands.at(6).constant.toBool() : name.starts_with("conv_trans");
    cost.flops = matrix_flops(name, tensors, has_y ? returned[0].toTensor() : at::Tensor(), transposed);
    if (name != "scaled_dot_product_attention") return;
    const at::Tensor &q = tensors[0], &k = tensors[1];
    const std::int64_t bytes = q.numel() / q.size(-1) * k.size(-2) * static_cast<std::int64_t>(q.element_size());
    if (bytes <= kKeptScoresBytes) cost.scores_bytes = bytes;
  }

  void note(std::size_t n, int slot, const c10::IValue& value, const std::vector<Given>& given, Frame& frame) {
    frame[index(slot)] = value;
    value_of_[index(slot)] = cost_.values.size();
    ValueCost& made = cost_.values.emplace_back();
    made.made = n;
    made.active = list_.active[index(slot)];
    if (!value.isTensor() || !value.toTensor().defined()) return;
    const at::Tensor& tensor = value.toTensor();
    made.bytes = static_cast<std::int64_t>(tensor.nbytes());
    bool is_view = false;
    std::set<std::size_t> viewed;
    for (const Given& one : given) {
      if (!one.tensor.defined() || !one.tensor.has_storage() || !tensor.is_alias_of(one.tensor)) continue;
      is_view = true;
      if (one.slot >= 0) viewed.insert(viewed_[index(one.slot)].begin(), viewed_[index(one.slot)].end());
    }
    made.viewed.assign(viewed.begin(), viewed.end());
    viewed_[index(slot)] = made.viewed;
    if (is_view) return;
    cost_.nodes[n].fresh_bytes += made.bytes;
    if (made.active) cost_.nodes[n].fresh_active_bytes += made.bytes;
  }

  const TangentProgram::Impl& program_;
  const NodeList& list_;
  CostRun run_;
  ProgramCost cost_;
  std::vector<std::vector<std::size_t>> viewed_;      // per slot: the parameters whose memory it is
  std::vector<std::optional<std::size_t>> value_of_;  // per slot: its place among cost_.values
};

}  // namespace

double ProgramCost::flops() const {
  double sum = 0;
  for (const NodeCost& node : nodes) sum += node.flops;
  return sum;
}

ParameterCost ProgramCost::total() const {
  ParameterCost sum;
  for (const ParameterCost& one : parameters) {
    sum.numel += one.numel;
    sum.stored_bytes += one.stored_bytes;
    sum.run_bytes += one.run_bytes;
    sum.vector_bytes += one.vector_bytes;
  }
  return sum;
}

ProgramCost program_cost(const TangentProgram& program, const std::vector<at::Tensor>& inputs, CostRun run) {
  if (run == CostRun::kShapes) register_shape_forms();
  return Walk(program.impl(), run).over(inputs);
}

}  // namespace hesspect
