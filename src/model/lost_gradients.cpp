// Where gradients of parameters stop on their way to an output: `detach`, regions under `no_grad`, numbers read from
// tensors.
//
// The graph is taken apart into operations between values, nested graphs included. A value depends on a parameter where
// a chain of continuous values leads to it, and autograd sees that where no operation of the chain stops it. Views and
// what they are views of are one value, so that what is written into one is seen in the other; the order of such writes
// is not looked at.
#include <algorithm>
#include <map>
#include <set>

#include "hesspect/core/text.h"
#include "program_impl.h"

namespace hesspect {
namespace {

enum class Stop { kNone, kDetach, kItem, kNoGrad };

struct Operation {
  const Instruction* instruction = nullptr;
  Stop stop = Stop::kNone;
  const Instruction* region = nullptr;  // the outermost one under no_grad that it lies in
  std::vector<int> from, to;
};

/// The op's name without namespace and overload, "linear"; for other operations the target.
std::string op_name(const Instruction& instruction) {
  if (!instruction.op) return instruction.origin.target;
  const std::string& name = instruction.op->schema().name();
  return name.substr(name.rfind(':') + 1);  // npos + 1 = 0: the whole name
}

/// How many of an op's arguments its values come from; the others lend their shape or dtype.
std::size_t value_arguments(const std::string& op, std::size_t arguments) {
  static const std::set<std::string> none = {"zeros_like", "ones_like", "full_like", "empty_like",
                                             "new_zeros",  "new_ones",  "new_full",  "new_empty"};
  static const std::set<std::string> first = {"view_as", "expand_as", "reshape_as", "type_as"};
  return none.contains(op) ? 0 : first.contains(op) ? std::min<std::size_t>(1, arguments) : arguments;
}

void add_slots(const Operand& operand, std::vector<int>& slots) {
  for_each_slot(operand, [&](int slot) { slots.push_back(slot); });
}

class Dataflow {
 public:
  explicit Dataflow(const Graph& graph) {
    for (const int slot : graph.inputs) value_of(graph, slots_, slot);
    add_graph(graph, slots_, nullptr);
  }

  const std::vector<Operation>& operations() const { return operations_; }
  int size() const { return static_cast<int>(same_.size()); }
  /// The value of a slot of the outermost graph.
  int value(int slot) const { return find(slots_.at(slot)); }
  bool has(int slot) const { return slots_.contains(slot); }

  /// Gives merged values one number, once all operations are known.
  void settle() {
    for (Operation& operation : operations_)
      for (std::vector<int>* values : {&operation.from, &operation.to})
        for (int& value : *values) value = find(value);
  }

 private:
  using Slots = std::map<int, int>;  // a graph's continuous slots -> values

  int find(int value) const {
    while (same_[static_cast<std::size_t>(value)] != value) value = same_[static_cast<std::size_t>(value)];
    return value;
  }

  /// -1 where the slot holds no continuous value.
  int value_of(const Graph& graph, Slots& slots, int slot) {
    if (!graph.continuous[static_cast<std::size_t>(slot)]) return -1;
    const auto [it, fresh] = slots.emplace(slot, size());
    if (fresh) same_.push_back(size());
    return it->second;
  }

  std::vector<int> values_of(const Graph& graph, Slots& slots, const std::vector<int>& of) {
    std::vector<int> values;
    for (const int slot : of)
      if (slot >= 0)
        if (const int value = value_of(graph, slots, slot); value >= 0) values.push_back(value);
    return values;
  }

  void add_graph(const Graph& graph, Slots& slots, const Instruction* region) {
    for (const Instruction& instruction : graph.instructions)
      if (instruction.subgraph)
        add_subgraph(graph, slots, instruction, region);
      else
        add_operation(graph, slots, instruction, region);
  }

  void add_subgraph(const Graph& graph, Slots& slots, const Instruction& instruction, const Instruction* region) {
    const Graph& inner = *instruction.subgraph;
    if (region == nullptr && instruction.grad_mode && !*instruction.grad_mode) region = &instruction;
    Slots inner_slots;
    const std::size_t first = instruction.operands.size() - inner.inputs.size();  // vmap has arguments of its own
    for (std::size_t i = 0; i < inner.inputs.size(); ++i) {
      const Operand& operand = instruction.operands[first + i];
      if (operand.kind != Operand::Kind::kSlot || !inner.continuous[static_cast<std::size_t>(inner.inputs[i])])
        continue;
      if (const int value = value_of(graph, slots, operand.slot); value >= 0)
        inner_slots.emplace(inner.inputs[i], value);
    }
    add_graph(inner, inner_slots, region);
    for (std::size_t i = 0; i < instruction.outputs.size(); ++i) {
      const Operand& output = inner.outputs[i];
      if (output.kind != Operand::Kind::kSlot || instruction.outputs[i] < 0) continue;
      if (const int value = value_of(inner, inner_slots, output.slot); value >= 0)
        slots.emplace(instruction.outputs[i], value);
    }
  }

  void add_operation(const Graph& graph, Slots& slots, const Instruction& instruction, const Instruction* region) {
    const std::string name = op_name(instruction);
    Operation operation;
    operation.instruction = &instruction;
    operation.region = region;
    if (region != nullptr)
      operation.stop = Stop::kNoGrad;
    else if (name == "detach" || name == "detach_")
      operation.stop = Stop::kDetach;
    else if (name == "item" || name == "_local_scalar_dense" || instruction.kind == Instruction::Kind::kSymbolic)
      operation.stop = Stop::kItem;
    std::vector<int> from, to = instruction.outputs, aliased;
    const std::size_t arguments = value_arguments(name, instruction.operands.size());
    for (std::size_t i = 0; i < instruction.operands.size(); ++i) {
      if (i < arguments) add_slots(instruction.operands[i], from);
      if (!instruction.op || instruction.op->schema().arguments()[i].alias_info() == nullptr) continue;
      add_slots(instruction.operands[i], aliased);
      if (instruction.writes[i] && name != "detach_") add_slots(instruction.operands[i], to);
    }
    operation.from = values_of(graph, slots, from);
    operation.to = values_of(graph, slots, to);
    if (operation.stop == Stop::kNone) unite(values_of(graph, slots, aliased), operation.to);
    operations_.push_back(std::move(operation));
  }

  void unite(const std::vector<int>& bases, const std::vector<int>& views) {
    if (bases.empty()) return;
    for (const std::vector<int>* values : {&bases, &views})
      for (const int value : *values) same_[static_cast<std::size_t>(find(value))] = find(bases.front());
  }

  std::vector<int> same_;  // a value -> one that it was merged into, at last itself
  Slots slots_;            // of the outermost graph
  std::vector<Operation> operations_;
};

using Marks = std::vector<bool>;  // per value

bool any(const Marks& marks, const std::vector<int>& values) {
  return std::any_of(values.begin(), values.end(), [&](int value) { return marks[static_cast<std::size_t>(value)]; });
}

/// Carries marks along operations until nothing changes. @param through_stops  as if nothing stopped gradients
void spread(const Dataflow& flow, bool forward, bool through_stops, Marks& marks) {
  for (bool changed = true; changed;) {
    changed = false;
    const std::vector<Operation>& all = flow.operations();
    for (std::size_t i = 0; i < all.size(); ++i) {
      const Operation& operation = forward ? all[i] : all[all.size() - 1 - i];
      if (!through_stops && operation.stop != Stop::kNone) continue;
      if (!any(marks, forward ? operation.from : operation.to)) continue;
      for (const int value : forward ? operation.to : operation.from)
        if (!marks[static_cast<std::size_t>(value)]) changed = marks[static_cast<std::size_t>(value)] = true;
    }
  }
}

/// What stops gradients that are on their way to the outputs.
struct Stops {
  std::vector<const Operation*> of[4];  // by kind; one of each region
  std::size_t count(Stop kind) const { return of[static_cast<std::size_t>(kind)].size(); }
  const Operation& first(Stop kind) const { return *of[static_cast<std::size_t>(kind)].front(); }
  std::vector<std::string> lost;  // parameters that reach the outputs through stops alone
  bool all_lost = false;
};

std::string and_more(std::size_t count, const std::string& what) {
  return count > 1 ? " and at " + std::to_string(count - 1) + " more " + what + (count > 2 ? "s" : "") : "";
}

/// "node 'x' (…)"; for a region the node itself, with the line of the op where values first lose their gradients.
std::string place(const Operation& operation) {
  if (operation.region == nullptr) return operation.instruction->origin.describe();
  Origin origin = operation.region->origin;
  if (origin.source.empty()) origin.source = operation.instruction->origin.source;
  return origin.describe();
}

constexpr const char* kHeldConstant = "; the Hessian is that of the program with such values held constant";

std::vector<std::string> describe(const Stops& stops, std::size_t parameters) {
  std::vector<std::string> lines;
  if (const std::size_t count = stops.count(Stop::kDetach); count > 0)
    lines.push_back("gradients of parameters are stopped by detach at " + place(stops.first(Stop::kDetach)) +
                    and_more(count, "node") + kHeldConstant +
                    ". Traced programs (make_fx, functorch) keep such nodes on saved activations where the model has "
                    "none: unless they are meant, take them out (node.replace_all_uses_with(node.args[0])) or export "
                    "without tracing");
  if (const std::size_t count = stops.count(Stop::kItem); count > 0)
    lines.push_back("gradients of parameters are stopped where a number is read from a tensor (item) at " +
                    place(stops.first(Stop::kItem)) + and_more(count, "node") + kHeldConstant +
                    ". Unless that is meant, let the model compute with the tensor");
  const std::size_t regions = stops.count(Stop::kNoGrad);
  if (regions > 0)
    lines.push_back("values that depend on parameters are computed under no_grad at " +
                    place(stops.first(Stop::kNoGrad)) + and_more(regions, "region") + kHeldConstant);
  if (!stops.lost.empty())
    lines.push_back(
        std::to_string(stops.lost.size()) + " of " + std::to_string(parameters) + " parameter tensors, such as '" +
        stops.lost.front() + "', reach the output only " + (regions > 0 ? "under no_grad" : "through such nodes") +
        ": their part of the Hessian is zero" +
        (regions > 0 ? ". Reentrant checkpointing (torch.utils.checkpoint with use_reentrant=True) does that: export "
                       "with use_reentrant=False"
                     : ""));
  return lines;
}

std::string reason(const Stops& stops) {
  if (!stops.all_lost) return "";
  if (stops.count(Stop::kNoGrad) > 0)
    return ": gradients are off (no_grad) from " + place(stops.first(Stop::kNoGrad)) +
           " on. Export a model whose forward runs neither under torch.no_grad() nor under inference_mode(), and "
           "checkpointed blocks with use_reentrant=False";
  const Stop kind = stops.count(Stop::kDetach) > 0 ? Stop::kDetach : Stop::kItem;
  if (stops.count(kind) == 0) return "";
  return std::string(": ") + (kind == Stop::kDetach ? "detach" : "item") + " stops every gradient, first at " +
         place(stops.first(kind)) + "; export the model without it";
}

}  // namespace

LostGradients Program::lost_gradients(std::optional<int> output) const {
  const Graph& graph = impl_->graph;
  Dataflow flow(graph);
  flow.settle();
  const Marks none(static_cast<std::size_t>(flow.size()), false);
  Marks seen = none;                                         // by autograd, from the parameters on
  Marks needed = none;                                       // by the outputs, whatever stops gradients
  std::vector<std::pair<std::size_t, std::size_t>> sources;  // a value and the parameter that it is
  for (std::size_t i = 0; i < impl_->feeds.size(); ++i)
    if (impl_->feeds[i].kind == Impl::Feed::Kind::kParameter && flow.has(graph.inputs[i]))
      sources.emplace_back(flow.value(graph.inputs[i]), impl_->feeds[i].index);
  for (const auto& [value, parameter] : sources) seen[value] = true;
  for (std::size_t i = 0; i < graph.outputs.size(); ++i)
    if (graph.outputs[i].kind == Operand::Kind::kSlot && flow.has(graph.outputs[i].slot))
      if (!output || *output == static_cast<int>(i))
        needed[static_cast<std::size_t>(flow.value(graph.outputs[i].slot))] = true;
  Marks used = needed;  // by the outputs, as autograd sees it
  spread(flow, /*forward=*/true, /*through_stops=*/false, seen);
  spread(flow, /*forward=*/false, /*through_stops=*/true, needed);
  spread(flow, /*forward=*/false, /*through_stops=*/false, used);

  Stops stops;
  std::set<const Instruction*> regions;
  for (const Operation& operation : flow.operations()) {
    if (operation.stop == Stop::kNone || !any(seen, operation.from) || !any(needed, operation.to)) continue;
    if (operation.region != nullptr && !regions.insert(operation.region).second) continue;
    stops.of[static_cast<std::size_t>(operation.stop)].push_back(&operation);
  }
  const std::size_t parameters = impl_->leaves.size();
  std::vector<bool> wanted(parameters, false), reached(parameters, false);
  for (const auto& [value, parameter] : sources) {
    if (needed[value]) wanted[parameter] = true;
    if (used[value]) reached[parameter] = true;
  }
  for (std::size_t p = 0; p < parameters; ++p)
    if (wanted[p] && !reached[p]) stops.lost.push_back(impl_->layout.entries()[p].name);
  stops.all_lost = !stops.lost.empty() && std::find(reached.begin(), reached.end(), true) == reached.end();
  return {describe(stops, parameters), reason(stops)};
}

}  // namespace hesspect
