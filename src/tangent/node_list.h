// A program's graph as the sweeps walk it: one flat list of nodes, each with what tangents may reach.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "hesspect/model/graph.h"
#include "hesspect/model/program.h"
#include "hesspect/tangent/rule.h"

namespace hesspect {

inline std::size_t index(int slot) { return static_cast<std::size_t>(slot); }

struct Node {
  const Instruction* instruction = nullptr;  // what kind of node, and where it came from
  std::optional<c10::OperatorHandle> op;     // in the place of the instruction's: the form that writes to nothing
  std::vector<Operand> operands;
  std::vector<int> outputs;     // slots; -1: dropped
  std::vector<Source> sources;  // where tangents come in; none: the node is run for its values alone
  std::vector<int> dead;        // slots that no later node reads
  bool active() const { return !sources.empty(); }
};

struct NodeList {
  std::vector<Node> nodes;
  int slots = 0;
  std::vector<bool> active;                           // per slot: it depends on parameters, and the loss on it
  std::vector<int> inputs;                            // slots, in the graph's order
  std::vector<Operand> kept;                          // the outputs that were asked for, in order
  std::vector<std::unique_ptr<Instruction>> regions;  // several nodes as one
  std::set<const Instruction*> unneeded;              // that no output which was asked for depends on
  /// Positions p, where the list may not be cut before node p: an op in between writes to what came before.
  std::set<std::size_t> uncut;
};

/// Inlines regions that leave gradients on, gives ops that write to their argument the form that does not, folds those
/// that write into a part of a tensor with what it is a part of, drops what no asked output needs, and finds what
/// tangents reach.
/// @param outputs  indices of the program's outputs; tangents are carried to the first
NodeList node_list(const Program& program, const std::vector<std::size_t>& outputs);

}  // namespace hesspect
