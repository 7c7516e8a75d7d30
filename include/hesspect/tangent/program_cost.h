// What a program costs, node by node: bytes of its values, matrix products, and which parameters it reads.
//
// It is found in one run over shapes alone: inputs and parameters are tensors of the meta device, which have no memory,
// so that a program of 405 billion parameters, without weights, takes megabytes and seconds.
//
//   const ProgramCost cost = program_cost(program, inputs);
//   const ShardedSettings run = {.ranks = 8, .micro_batches = 4};
//   const Cuts cuts = find_cuts(cost, run);
//   for (const SegmentCost& segment : segment_costs(cost, cuts)) …
//   const std::int64_t bytes = sharded_bytes(cost, cuts, run).total();  // of a rank, beside its share of the whole
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "hesspect/tangent/tangent_program.h"

namespace hesspect {

/// A node of the list that the sweeps walk, for one micro-batch.
struct NodeCost {
  std::string op;        // "aten.linear.default"
  bool active = false;   // tangents reach it
  bool is_head = false;  // the linear layer that is run with the objective, in chunks of rows
  bool may_cut = false;  // the list may be cut before it
  double flops = 0;      // of its matrix products, run once; a multiplication and an addition are two
  /// Of its outputs, those that are views of its arguments excepted; and of these, of the ones that tangents reach.
  std::int64_t fresh_bytes = 0, fresh_active_bytes = 0;
  std::int64_t scores_bytes = 0;  // of attention: the probabilities that its rule keeps
  /// Which parameters it reads, of those that are brought, itself or through views that other nodes made: ascending.
  std::vector<std::size_t> parameters;
};

/// A value that one node makes and others read.
struct ValueCost {
  static constexpr std::size_t kNoNode = std::numeric_limits<std::size_t>::max();
  std::size_t made = kNoNode;       // the node
  std::size_t last_read = kNoNode;  // the last node that reads it; kNoNode: none does
  std::int64_t bytes = 0;           // as it is read, whether it is a view or not
  bool active = false;
  std::vector<std::size_t> viewed;  // parameters of whose memory it is a view
};

/// A parameter, as a rank holds and gathers it.
struct ParameterCost {
  std::int64_t numel = 0;
  std::int64_t stored_bytes = 0;  // in the type that the program's file has it in
  std::int64_t run_bytes = 0;     // in the run's
  std::int64_t vector_bytes = 0;  // of its entries in a vector; 0 where it is held fixed
};

struct ProgramCost {
  std::vector<NodeCost> nodes;            // in the list's order
  std::vector<ValueCost> values;          // in the order in which they are made
  std::vector<ParameterCost> parameters;  // in the layout's order, then those that are held fixed
  /// Ops with matrix products whose FLOPs are not in `flops`: regions that run as a whole, einsum. Each once.
  std::vector<std::string> uncounted;

  double flops() const;
  /// Of all parameters.
  ParameterCost total() const;
};

/// What one run is made on.
enum class CostRun {
  kShapes,  // tensors without memory; the program's parameters need have none either
  kValues   // the inputs and parameters as they are: for ops whose shapes depend on values. The head is not run
};

/// One run of the program.
/// @param inputs  of a micro-batch, as Program::prepare_inputs gives them; of kShapes only shapes and types count
/// @throws InputError naming node and op, where shapes are not known without values
ProgramCost program_cost(const TangentProgram& program, const std::vector<at::Tensor>& inputs,
                         CostRun run = CostRun::kShapes);

/// A run of which D ranks hold one copy of parameters and vectors, a segment at a time whole.
struct ShardedSettings {
  std::int64_t ranks = 1;          // D
  std::int64_t micro_batches = 1;  // M, of a rank in a product
  std::int64_t tangents = 1;       // K, vectors that a product takes at once
  /// Bytes of each parameter as ranks keep it, in ProgramCost's order; none: in the program's own types.
  std::vector<std::int64_t> stored_bytes = {};
};

/// Nodes [begin, end) of a cut program.
struct SegmentCost {
  std::size_t begin = 0, end = 0;
  std::vector<std::size_t> parameters;  // that its nodes read: ascending
  ParameterCost gathered;               // of these, together
  double flops = 0;
  std::int64_t fixed_bytes = 0;    // inside: what is there once, whatever K is
  std::int64_t tangent_bytes = 0;  // inside: of each tangent
  /// Of one micro-batch, what is made here and read behind: values that no tangent reaches, and those that one does.
  std::int64_t crossing_still_bytes = 0, crossing_active_bytes = 0;
  /// Of the active values, all that cross the cut at `end`, wherever they are made: their adjoints are there at once.
  std::int64_t across_active_bytes = 0;

  std::int64_t inside_bytes(std::int64_t tangents) const { return fixed_bytes + tangents * tangent_bytes; }
};
std::vector<SegmentCost> segment_costs(const ProgramCost& cost, const Cuts& cuts,
                                       const std::vector<std::int64_t>& stored_bytes = {});

/// Bytes of a rank in a product, beside its share of parameters and vectors.
struct ShardedBytes {
  std::int64_t gathered = 0;  // twice the largest segment's parameters, as stored and as run, and K vectors' entries
  std::int64_t sums = 0;      // K products' entries of the largest segment
  std::int64_t crossing = 0;  // M · (Σ of values and K tangents that cross cuts + adjoints and theirs at one cut)
  std::int64_t inside = 0;    // of the segment that holds most, for one micro-batch
  std::int64_t total() const { return gathered + sums + crossing + inside; }
};
ShardedBytes sharded_bytes(const ProgramCost& cost, const Cuts& cuts, const ShardedSettings& run);

/// Chooses cuts for the least bytes of a rank: sharded_bytes, with its share of the parameters, of K vectors, their
/// products and two more. Fewer cuts where they do nearly as well, for each costs messages. No cut lies between a view
/// of a parameter and those who read it: a segment's parameters go when it is done.
Cuts find_cuts(const ProgramCost& cost, const ShardedSettings& run);
/// The same from a run over shapes, or over values where shapes do not do and the program has its parameters.
Cuts find_cuts(const TangentProgram& program, const std::vector<at::Tensor>& inputs, const ShardedSettings& run);

}  // namespace hesspect
