// What a TangentProgram holds, shared by the files of this room.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/model/executor.h"
#include "hesspect/tangent/tangent_program.h"
#include "node_list.h"
#include "registry.h"

namespace hesspect {

struct TangentProgram::Impl {
  const Program& program;
  NodeList list;
  std::vector<FoundRule> rules;  // per node; without `make`: the fallback
  int output = -1;               // the slot that the objective is taken of; -1: a constant
  /// The last node where it is a linear layer whose output nobody but the objective reads: it may be run in chunks of
  /// rows together with the objective.
  int linear_head = -1;

  /// Seconds of each node, the head's last: value, tangent, adjoint, adjoint tangent. Sweeps of one program are made in
  /// turn.
  mutable std::vector<std::array<double, 4>> seconds;
  std::vector<std::string> names;  // of each node's op, and "head"
  mutable Timeline* timeline = nullptr;
  mutable std::vector<bool> turned_down;  // per node: its rule did not take the arguments of some sweep

  /// A frame that holds the program's inputs, parameters without their gradients.
  Frame first_values(const std::vector<at::Tensor>& inputs) const;

  Impl(const Program& the_program, const std::vector<std::size_t>& outputs);

  /// Whether autograd differentiates node n, as far as is known by now.
  bool is_left(std::size_t n) const { return list.nodes[n].active() && (rules[n].make == nullptr || turned_down[n]); }
};

}  // namespace hesspect
