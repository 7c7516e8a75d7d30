#include "node_list.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <ranges>

#include "fuse.h"
namespace hesspect {
namespace {

/// "aten::relu_" -> "relu_"; the target where the node is no op.
std::string op_name(const Instruction& instruction) {
  if (!instruction.op) return instruction.origin.target;
  const std::string& name = instruction.op->schema().name();
  return name.substr(name.rfind(':') + 1);  // npos + 1 = 0: the whole name
}

/// Ops that take only shape and type from their argument, or stop gradients.
bool stops_tangents(const Instruction& instruction) {
  static const std::set<std::string> ops = {"detach",
                                            "detach_",
                                            "zeros_like",
                                            "ones_like",
                                            "full_like",
                                            "empty_like",
                                            "rand_like",
                                            "randn_like",
                                            "new_zeros",
                                            "new_ones",
                                            "new_full",
                                            "new_empty",
                                            "item",
                                            "argmax",
                                            "argmin",
                                            "_local_scalar_dense",
                                            "argsort",
                                            "sign",
                                            "isnan",
                                            "isinf",
                                            "floor",
                                            "ceil",
                                            "round",
                                            "trunc",
                                            "_assert_tensor_metadata",
                                            "sym_size"};
  const bool no_grad =
      instruction.kind == Instruction::Kind::kSubgraph && instruction.grad_mode.value_or(true) == false;
  return no_grad || instruction.kind == Instruction::Kind::kSymbolic || ops.contains(op_name(instruction));
}

class Builder {
 public:
  explicit Builder(const Program& program) : program_(program) {}

  NodeList run(const std::vector<std::size_t>& outputs) {
    const Graph& graph = program_.graph();
    list_.slots = graph.slots;
    list_.inputs = graph.inputs;
    continuous_ = graph.continuous;
    continuous_.resize(static_cast<std::size_t>(graph.slots), false);
    inline_graph(graph, {});
    write_to_nothing();
    for (const std::size_t output : outputs) list_.kept.push_back(renamed(graph.outputs[output]));
    fold_shared_writes();
    drop_unneeded();
    list_.active = reached_by_parameters();
    fuse(list_);
    find_active();
    find_last_uses();
    return std::move(list_);
  }

 private:
  using Renaming = std::map<int, Operand>;  // an inner graph's slots -> operands of the flat list

  static Operand substituted(const Operand& operand, const Renaming& names) {
    Operand result = operand;
    if (operand.kind == Operand::Kind::kSlot && names.contains(operand.slot)) {
      result = names.at(operand.slot);
      result.wrap_number = operand.wrap_number;
    }
    for (Operand& item : result.items) item = substituted(item, names);
    return result;
  }

  void inline_graph(const Graph& graph, Renaming names) {
    const bool is_inner = &graph != &program_.graph();
    for (const Instruction& instruction : graph.instructions) {
      Node node;
      node.instruction = &instruction;
      for (const Operand& operand : instruction.operands) node.operands.push_back(substituted(operand, names));
      for (const int slot : instruction.outputs) {
        node.outputs.push_back(!is_inner || slot < 0 ? slot : list_.slots);
        if (!is_inner || slot < 0) continue;
        names[slot] = slot_operand(list_.slots++);
        continuous_.push_back(graph.continuous.size() > index(slot) && graph.continuous[index(slot)]);
      }
      if (instruction.kind == Instruction::Kind::kSubgraph && instruction.grad_mode.value_or(true))
        inline_region(node);
      else
        list_.nodes.push_back(std::move(node));
    }
    if (is_inner) inner_names_ = std::move(names);
  }

  void inline_region(const Node& region) {
    const Graph& inner = *region.instruction->subgraph;
    Renaming names;
    for (std::size_t i = 0; i < inner.inputs.size(); ++i) names[inner.inputs[i]] = region.operands[i];
    inline_graph(inner, std::move(names));
    for (std::size_t i = 0; i < region.outputs.size(); ++i)
      if (region.outputs[i] >= 0) alias_[region.outputs[i]] = substituted(inner.outputs[i], inner_names_);
  }

  /// An operand with the slots that were found to be another's replaced.
  Operand renamed(const Operand& operand) const { return substituted_all(operand); }

  Operand substituted_all(Operand operand) const {
    while (operand.kind == Operand::Kind::kSlot && alias_.contains(operand.slot)) {
      const bool wrap = operand.wrap_number;
      operand = alias_.at(operand.slot);
      operand.wrap_number = wrap;
    }
    for (Operand& item : operand.items) item = substituted_all(item);
    return operand;
  }

  // --- ops that write ---------------------------------------------------------------------------------------------

  static std::vector<int> slots_of(const Operand& operand) {
    std::vector<int> slots;
    for_each_slot(operand, [&](int slot) { slots.push_back(slot); });
    return slots;
  }

  int root(int slot) const {
    while (storage_[index(slot)] != slot) slot = storage_[index(slot)];
    return slot;
  }

  /// Whether an output may share the argument's storage. A dropout that is off gives its argument itself.
  static bool may_alias(const Instruction& instruction, std::size_t argument) {
    if (!instruction.op) return instruction.subgraph != nullptr;
    return instruction.op->schema().arguments()[argument].alias_info() != nullptr ||
           (argument == 0 && op_name(instruction).find("dropout") != std::string::npos);
  }

  /// The form of an op that gives a fresh tensor: add_ -> add. Nothing where there is none of the same arguments.
  static std::optional<c10::OperatorHandle> fresh_form(const Instruction& instruction) {
    if (instruction.kind != Instruction::Kind::kDispatch || !instruction.op) return std::nullopt;
    const c10::FunctionSchema& schema = instruction.op->schema();
    std::string name = schema.name();
    if (!name.ends_with('_') || schema.returns().size() != 1) return std::nullopt;
    name.pop_back();
    const auto fresh = c10::Dispatcher::singleton().findSchema({name, schema.overload_name()});
    if (!fresh || fresh->schema().arguments().size() != schema.arguments().size()) return std::nullopt;
    for (std::size_t i = 0; i < schema.arguments().size(); ++i)
      if (fresh->schema().arguments()[i].name() != schema.arguments()[i].name()) return std::nullopt;
    return fresh;
  }

  /// Slots that share storage get one root. An op that writes to a slot whose storage no other slot has takes the form
  /// that does not, and later nodes read its output; where other slots see what is written, the list stays uncut.
  void write_to_nothing() {
    storage_.resize(static_cast<std::size_t>(list_.slots));
    std::iota(storage_.begin(), storage_.end(), 0);
    std::map<int, std::vector<std::size_t>> seen;  // root -> the nodes that made or viewed its storage
    std::vector<std::pair<std::size_t, int>> shared_writes;
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      Node& node = list_.nodes[n];
      for (Operand& operand : node.operands) operand = renamed(operand);
      const Instruction& instruction = *node.instruction;
      std::vector<int> bases;
      for (std::size_t i = 0; i < node.operands.size(); ++i) {
        if (!may_alias(instruction, i)) continue;
        for (const int slot : slots_of(node.operands[i])) bases.push_back(root(slot));
      }
      const bool writes =
          std::ranges::find(instruction.writes, true) != instruction.writes.end() && op_name(instruction) != "detach_";
      if (writes) {
        const auto at =
            static_cast<std::size_t>(std::ranges::find(instruction.writes, true) - instruction.writes.begin());
        const int slot = node.operands[at].kind == Operand::Kind::kSlot ? node.operands[at].slot : -1;
        node.op = fresh_form(instruction);
        const bool alone =
            slot >= 0 && seen[root(slot)].size() <= 1 && std::ranges::count(instruction.writes, true) == 1;
        if (node.op && alone && !node.outputs.empty()) {
          if (node.outputs[0] < 0) {
            node.outputs[0] = list_.slots++;
            storage_.push_back(node.outputs[0]);
            continuous_.push_back(continuous_[index(slot)]);
          }
          alias_[slot] = slot_operand(node.outputs[0]);
          seen[root(node.outputs[0])].push_back(n);
          continue;
        }
        node.op.reset();
        for (const int base : bases) shared_writes.emplace_back(n, base);
      }
      for (const int output : node.outputs) {
        if (output < 0) continue;
        for (const int base : bases) {
          if (root(base) == root(output)) continue;
          auto& moved = seen[root(output)];
          seen[root(base)].insert(seen[root(base)].end(), moved.begin(), moved.end());
          storage_[static_cast<std::size_t>(root(output))] = root(base);
        }
        seen[root(output)].push_back(n);
      }
    }
    for (const auto& [n, base] : shared_writes) {
      const std::vector<std::size_t>& nodes = seen[root(base)];
      shared_.push_back({nodes.empty() ? n : std::min(n, *std::ranges::min_element(nodes)), n, root(base)});
    }
  }

  /// Nodes from one that made a storage up to one that writes to it, where several slots see what is written.
  struct SharedWrite {
    std::size_t first, last;
    int root;
  };

  /// Where tangents reach what is written, the nodes in between become one region that autograd differentiates as a
  /// whole; else they must stay together, for a second run of some of them would write twice.
  void fold_shared_writes() {
    const std::vector<bool> reached = reached_by_parameters();
    std::vector<SharedWrite> regions;
    for (const SharedWrite& write : shared_) {
      const bool is_active = std::ranges::any_of(
          std::views::iota(0, list_.slots), [&](int slot) { return reached[index(slot)] && root(slot) == write.root; });
      if (is_active) regions.push_back(write);
    }
    std::ranges::sort(regions, {}, &SharedWrite::first);
    std::vector<SharedWrite> joined;
    for (const SharedWrite& region : regions)
      if (!joined.empty() && region.first <= joined.back().last)
        joined.back().last = std::max(joined.back().last, region.last);
      else
        joined.push_back(region);
    std::vector<std::size_t> position(list_.nodes.size());
    std::vector<Node> nodes;
    std::size_t next = 0;
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      position[n] = nodes.size();
      if (next == joined.size() || n != joined[next].first) {
        nodes.push_back(std::move(list_.nodes[n]));
        continue;
      }
      for (; n <= joined[next].last; ++n) position[n] = nodes.size();
      n = joined[next].last;
      nodes.push_back(region_of(joined[next]));
      ++next;
    }
    list_.nodes = std::move(nodes);
    for (const SharedWrite& write : shared_) {
      for (std::size_t p = position[write.first] + 1; p <= position[write.last]; ++p) list_.uncut.insert(p);
      writers_.push_back(position[write.last]);
    }
  }

  static Instruction copy_of(const Instruction& from) {
    Instruction copy;
    copy.kind = from.kind;
    copy.op = from.op;
    copy.symbolic = from.symbolic;
    copy.rewrite = from.rewrite;
    copy.grad_mode = from.grad_mode;
    copy.operands = from.operands;
    copy.writes = from.writes;
    copy.outputs = from.outputs;
    copy.spreads_list = from.spreads_list;
    copy.origin = from.origin;
    if (!from.subgraph) return copy;
    copy.subgraph = std::make_unique<Graph>();
    copy.subgraph->slots = from.subgraph->slots;
    copy.subgraph->continuous = from.subgraph->continuous;
    copy.subgraph->folded_from = from.subgraph->folded_from;
    copy.subgraph->inputs = from.subgraph->inputs;
    copy.subgraph->outputs = from.subgraph->outputs;
    for (const Instruction& inner : from.subgraph->instructions) {
      copy.subgraph->instructions.push_back(copy_of(inner));
      copy.subgraph->instructions.back().dead = inner.dead;
    }
    return copy;
  }

  Node region_of(const SharedWrite& range) {
    auto instruction = std::make_unique<Instruction>();
    instruction->kind = Instruction::Kind::kSubgraph;
    instruction->origin = list_.nodes[range.last].instruction->origin;
    instruction->subgraph = std::make_unique<Graph>();
    Graph& graph = *instruction->subgraph;
    graph.slots = list_.slots;
    graph.continuous = continuous_;
    std::set<int> made, read, read_outside;
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      const bool is_inside = n >= range.first && n <= range.last;
      for (const Operand& operand : list_.nodes[n].operands)
        for_each_slot(operand, [&](int slot) { (is_inside ? read : read_outside).insert(slot); });
      if (!is_inside) continue;
      for (const int slot : list_.nodes[n].outputs)
        if (slot >= 0) made.insert(slot);
    }
    for (const Operand& output : list_.kept) for_each_slot(output, [&](int slot) { read_outside.insert(slot); });
    for (std::size_t n = range.first; n <= range.last; ++n) {
      const Node& node = list_.nodes[n];
      Instruction inner = copy_of(*node.instruction);
      if (node.op) {
        inner.kind = Instruction::Kind::kDispatch;
        inner.op = node.op;
        inner.writes.assign(inner.writes.size(), false);
      }
      inner.operands = node.operands;
      inner.outputs = node.outputs;
      graph.instructions.push_back(std::move(inner));
    }
    for (const int slot : read)
      if (!made.contains(slot)) {
        graph.inputs.push_back(slot);
        instruction->operands.push_back(slot_operand(slot));
      }
    for (const int slot : made)
      if (read_outside.contains(slot)) {
        graph.outputs.push_back(slot_operand(slot));
        instruction->outputs.push_back(slot);
      }
    instruction->writes.assign(instruction->operands.size(), false);
    Node node;
    node.instruction = instruction.get();
    node.operands = instruction->operands;
    node.outputs = instruction->outputs;
    list_.regions.push_back(std::move(instruction));
    return node;
  }

  /// The slots that depend on parameters; what is written into a storage, in all slots that share it.
  std::vector<bool> reached_by_parameters() const {
    std::vector<bool> reached(index(list_.slots), false);
    const auto parameters = program_.parameter_inputs();
    for (std::size_t i = 0; i < list_.inputs.size(); ++i)
      if (parameters[i]) reached[index(list_.inputs[i])] = true;
    for (bool grows = true; grows;) {
      grows = false;
      for (const Node& node : list_.nodes) {
        if (stops_tangents(*node.instruction) || !any_slot(node.operands, reached)) continue;
        const auto reach = [&](int slot) {
          grows = grows || (continuous_[index(slot)] && !reached[index(slot)]);
          if (continuous_[index(slot)]) reached[index(slot)] = true;
        };
        for (const int slot : node.outputs)
          if (slot >= 0) reach(slot);
        for (std::size_t i = 0; i < node.operands.size(); ++i) {
          if (node.op || i >= node.instruction->writes.size() || !node.instruction->writes[i]) continue;
          for (const int written : slots_of(node.operands[i]))
            for (int slot = 0; slot < list_.slots; ++slot)
              if (index(slot) < storage_.size() && root(slot) == root(written)) reach(slot);
        }
      }
    }
    return reached;
  }

  static bool any_slot(const std::vector<Operand>& operands, const std::vector<bool>& flags) {
    bool any = false;
    for (const Operand& operand : operands) for_each_slot(operand, [&](int slot) { any = any || flags[index(slot)]; });
    return any;
  }

  // --- what is needed, and what tangents reach ---

  void drop_unneeded() {
    std::set<int> needed;
    const auto note = [&](int slot) { needed.insert(slot); };
    for (const Operand& output : list_.kept) for_each_slot(output, note);
    std::vector<Node> nodes;
    std::set<std::size_t> uncut;
    std::vector<std::size_t> positions(list_.nodes.size() + 1, 0);
    std::vector<bool> stays(list_.nodes.size(), false);
    for (std::size_t n = list_.nodes.size(); n-- > 0;) {
      const Node& node = list_.nodes[n];
      stays[n] = std::ranges::find(writers_, n) != writers_.end() ||
                 std::ranges::any_of(node.outputs, [&](int slot) { return needed.contains(slot); });
      if (!stays[n]) continue;
      for (const Operand& operand : node.operands) for_each_slot(operand, note);
    }
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      positions[n] = nodes.size();
      if (stays[n])
        nodes.push_back(std::move(list_.nodes[n]));
      else
        list_.unneeded.insert(list_.nodes[n].instruction);
    }
    for (const std::size_t p : list_.uncut) uncut.insert(positions[p]);
    std::vector<std::size_t> writers;
    for (const std::size_t n : writers_) writers.push_back(positions[n]);
    writers_ = std::move(writers);
    list_.nodes = std::move(nodes);
    list_.uncut = std::move(uncut);
  }

  void find_active() {
    list_.active = reached_by_parameters();
    std::vector<bool> useful(static_cast<std::size_t>(list_.slots), false);
    if (!list_.kept.empty()) for_each_slot(list_.kept.front(), [&](int slot) { useful[index(slot)] = true; });
    for (std::size_t n = list_.nodes.size(); n-- > 0;) {
      const Node& node = list_.nodes[n];
      if (stops_tangents(*node.instruction)) continue;
      if (std::ranges::none_of(node.outputs, [&](int slot) { return slot >= 0 && useful[index(slot)]; })) continue;
      for (const Operand& operand : node.operands)
        for_each_slot(operand, [&](int slot) { useful[index(slot)] = true; });
    }
    for (int slot = 0; slot < list_.slots; ++slot)
      list_.active[index(slot)] = list_.active[index(slot)] && useful[index(slot)];
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) find_sources(n);
  }

  void find_sources(std::size_t n) {
    Node& node = list_.nodes[n];
    if (stops_tangents(*node.instruction)) return;
    if (std::ranges::none_of(node.outputs, [&](int slot) { return slot >= 0 && list_.active[index(slot)]; })) return;
    const auto add = [&](std::size_t operand, std::size_t item, const Operand& from) {
      if (from.kind == Operand::Kind::kSlot && list_.active[static_cast<std::size_t>(from.slot)])
        node.sources.push_back({operand, item, from.slot});
    };
    for (std::size_t i = 0; i < node.operands.size(); ++i) {
      add(i, 0, node.operands[i]);
      for (std::size_t j = 0; j < node.operands[i].items.size(); ++j) add(i, j, node.operands[i].items[j]);
    }
  }

  void find_last_uses() {
    std::vector<int> last(static_cast<std::size_t>(list_.slots), -1);
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      for (const int slot : list_.nodes[n].outputs)
        if (slot >= 0) last[index(slot)] = static_cast<int>(n);
      for (const Operand& operand : list_.nodes[n].operands)
        for_each_slot(operand, [&](int slot) { last[index(slot)] = static_cast<int>(n); });
    }
    for (const Operand& output : list_.kept) for_each_slot(output, [&](int slot) { last[index(slot)] = -1; });
    for (const int slot : list_.inputs) last[index(slot)] = -1;
    for (int slot = 0; slot < list_.slots; ++slot)
      if (last[index(slot)] >= 0) list_.nodes[static_cast<std::size_t>(last[index(slot)])].dead.push_back(slot);
  }

  const Program& program_;
  NodeList list_;
  std::vector<bool> continuous_;
  std::map<int, Operand> alias_;  // slots that are what another operand is
  Renaming inner_names_;          // of the graph that was inlined last
  std::vector<int> storage_;      // per slot: one that shares its storage, at last itself
  std::vector<SharedWrite> shared_;
  std::vector<std::size_t> writers_;  // nodes that stay, whether what they make is read or not
};

}  // namespace

NodeList node_list(const Program& program, const std::vector<std::size_t>& outputs) {
  return Builder(program).run(outputs);
}

}  // namespace hesspect
