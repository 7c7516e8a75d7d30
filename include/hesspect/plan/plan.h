// The layout of a run, chosen before it starts: groups, ranks, lock-step, basis, micro-batch, kept graphs; what it will
// take in memory, messages and time. Arithmetic alone: no LibTorch, no communication, nothing measured here.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/core/basis_memory.h"
#include "hesspect/core/batch_cost.h"
#include "hesspect/core/element_type.h"
#include "hesspect/core/matrix_precision.h"
#include "hesspect/core/parameter_memory.h"

namespace hesspect {

/// The problem: what the model and the data are.
struct PlanProblem {
  std::int64_t parameters = 0;     // n
  std::int64_t element_bytes = 4;  // of parameters and vectors in the run
  std::int64_t buffer_bytes = 0;   // the program's buffers and constants
  std::int64_t rows = 0;           // of data, all
  std::int64_t row_bytes = 0;      // of data, inputs and target, as held by a rank
  bool static_batch = false;       // the micro-batch is the program's own, or the units', and can't be changed
  bool on_gpu = false;
  std::int64_t process_bytes = 0;  // of memory a process takes beside all of this (libraries, CUDA context)
  std::int64_t unit_rows = 1;      // rows that are never parted: of each unit of them
  MatrixPrecision precision = MatrixPrecision::kFp32;  // in which products are taken, and were measured

  std::int64_t units() const { return (rows + unit_rows - 1) / unit_rows; }
  /// Of the rank that has most, of so many.
  std::int64_t rows_of_rank(std::int64_t ranks) const { return (units() + ranks - 1) / ranks * unit_rows; }
};

/// A diagonal block or a feature: all that one group does with it, in a row.
struct BlockDemand {
  std::int64_t parameters = 0;  // entries of its vectors
  std::int64_t products = 0;    // at most
  std::int64_t losses = 0;      // of the model at other parameters
};

/// What the goals of a run take, at most. `run/goals` derives it: nothing else says what a run is planned for.
struct Demand {
  std::int64_t probes = 1;          // Lanczos runs
  std::int64_t steps = 80;          // of each of them
  std::int64_t longest_steps = 0;   // of probe 0's, where it goes on; 0: as the others
  std::int64_t other_products = 2;  // of the symmetry check, true residuals, the trace's own, runs of their own
  bool reorthogonalize = true;
  std::int64_t max_basis = 0;     // rows of probe 0's basis, where it restarts thick; 0: as many as steps
  bool keeps_basis = false;       // of probe 0, while its group works on others
  std::int64_t most_steps = 0;    // of any other run, which its basis has room for; 0: steps
  std::int64_t other_rows = 0;    // vectors beside the bases, in shards: of blocks, Hutch++, XTrace, the trace's probes
  bool adaptive = false;          // accuracy may ask for more products than these
  std::int64_t max_products = 0;  // of the whole run; 0: no limit
  std::int64_t joint = 1;         // products that are taken at once beside lock-step
  std::int64_t joint_where_room = 1;     // the same where there is room, else one by one
  std::int64_t wanted = 0;               // eigenvalues of probe 0's run, which may restart thick for them
  std::vector<BlockDemand> blocks = {};  // after all of this, dealt to the groups in this order
  bool are_features = false;             // what the blocks are
  std::int64_t block_rows = 0;           // vectors that the largest block takes in their place, in the whole's length
};

struct PlanMachine {
  int world = 1;                       // ranks
  std::int64_t memory_bytes = 0;       // a rank may take, its process included: of the GPU on GPUs
  std::int64_t host_memory_bytes = 0;  // beside a GPU, for a basis in host memory; unused on CPUs
  double bandwidth = 0;                // bytes/s of a rank's messages within a group
  double latency_s = 0;                // of one message step
  bool overlaps = false;               // messages go on beside arithmetic without taking from it
};

/// What the user has fixed; the rest is chosen. 0, nothing: chosen.
struct PlanRequest {
  std::int64_t groups = 0;
  std::int64_t lock_step = 0;
  std::int64_t micro_batch = 0;
  std::optional<ElementType> basis_dtype;  // kF64, kF32 or kBF16
  std::optional<BasisMemory> basis_memory;
  std::int64_t graph_bytes = -1;  // for what is kept between products; -1: chosen
  ParameterMemory parameters = ParameterMemory::kAuto;
  std::optional<bool> fetch_ahead = {};
};

/// How a group works that shares the parameters.
struct ShardedWork {
  std::int64_t ranks = 1;                           // of the group
  std::int64_t micro_batch = 1, micro_batches = 1;  // rows, and how many of them a rank has
  std::int64_t tangents = 1;                        // vectors that a product takes at once
};

/// A segment of the program, of which the group gathers the parameters whole. Bytes are of one micro-batch.
struct PlanSegment {
  std::int64_t parameters = 0;                      // that it reads, of those in vectors
  std::int64_t stored_bytes = 0;                    // of all that it reads, as ranks keep them
  std::int64_t fixed_bytes = 0, tangent_bytes = 0;  // held inside: once, and of each vector
  /// Made here and read behind: what no tangent reaches, and what one does; and of the latter all that cross its end.
  std::int64_t crossing_still_bytes = 0, crossing_active_bytes = 0, across_active_bytes = 0;
  double flops = 0;                   // of its matrix products, once
  std::int64_t fixed_parameters = 0;  // that it reads and no vector has (--params)
  bool is_reached = true;             // a product goes back through it: tangents flow in it
};

/// What is known of a program whose parameters may be shared by the ranks of a group.
struct ShardedProgram {
  std::int64_t stored_bytes = 0;  // of all parameters, as ranks keep them
  double flops_per_s = 0;         // of a rank's matrix products; 0: not known, and no times are
  bool widens = true;             // parameters are kept in another type than they are worked with
  /// Cuts the program for such work; empty: it can't be shared.
  std::function<std::vector<PlanSegment>(const ShardedWork&)> cut;
};

/// All that a plan is made from.
struct PlanInputs {
  PlanProblem problem;
  BatchCost cost;  // micro_batch 0: not measured; then activations and times are unknown, which the plan says
  Demand demand;
  PlanMachine machine;
  PlanRequest request;
  ShardedProgram sharded = {};
  /// Bytes of a micro-batch are known.
  bool measured() const { return cost.micro_batch > 0; }
  /// So is its time.
  bool timed() const { return measured() && cost.graph_s + cost.pullback_s > 0; }
  /// Costs are from shapes and FLOPs, not from trials.
  bool by_shapes() const { return sharded.cut != nullptr; }
};

/// Bytes on one rank, the largest of all.
struct PlanBytes {
  std::int64_t process = 0, parameters = 0, buffers = 0, data = 0;
  std::int64_t vectors = 0;      // gathered and local work vectors, of the length of the parameters and of a shard
  std::int64_t basis = 0;        // on the device, or:
  std::int64_t basis_host = 0;   // in host memory beside a GPU
  std::int64_t kept_graphs = 0;  // between products
  std::int64_t transient = 0;    // of a product: activations, gradients; of it:
  std::int64_t outputs = 0;      // logits
  std::int64_t holes = 0;        // on CPUs: freed memory between blocks in use, which the heap keeps
  /// Where parameters are shared: a segment's parameters, as kept and as run, and vectors, or two segments'; their
  /// products; what crosses cuts. `transient` is then a segment's inside.
  std::int64_t gathered = 0, sums = 0, crossing = 0;
  std::int64_t share_host = 0;     // parameters and vectors in host memory beside a GPU
  std::int64_t crossing_host = 0;  // what crosses cuts, there
  std::int64_t total() const {
    return process + parameters + buffers + data + vectors + basis + kept_graphs + transient + holes + gathered + sums +
           crossing;
  }
  std::int64_t total_host() const { return basis_host + share_host + crossing_host; }
};

struct Plan {
  int groups = 1;      // G
  int data_ranks = 1;  // D
  int lock_step = 1;   // K: probes a group advances together
  int joint = 1;       // products that a group takes at once, at most: the operator holds two whole vectors for each
  ElementType basis_dtype = ElementType::kF32;
  BasisMemory basis_memory = BasisMemory::kDevice;
  std::int64_t max_basis = 0;  // rows of the longest probe's basis, where it restarts thick; 0: as many as steps
  std::int64_t micro_batch = 0;
  std::int64_t micro_batches = 0;  // on a rank, at most
  std::int64_t kept_graphs = 0;    // of them
  std::int64_t graph_budget_bytes = 0;
  ProductMode product = ProductMode::kAuto;  // as it was measured
  ParameterMemory parameters = ParameterMemory::kReplicated;
  std::int64_t segments = 0;      // where parameters are shared:
  bool fetch_ahead = false;       // the next segment is gathered while one is worked on
  std::int64_t span = 1;          // segments between whose cuts what crosses is made again, not held; 1: it is held
  std::int64_t passes = 1;        // through the segments, each with a part of the micro-batches
  bool crossing_on_host = false;  // what crosses the cuts, beside a GPU
  PlanBytes bytes;
  bool fits = false;
  std::int64_t products = 0;                // at most, all groups
  std::int64_t products_in_turn = 0;        // of them, all probes', in the group that takes longest
  double product_s = 0;                     // of one probe's product in a group, messages included; 0: not known
  double run_s = 0;                         // products_in_turn and the Lanczos work between them; 0: not known
  std::int64_t block_products = 0;          // of all products, with blocks
  double blocks_s = 0;                      // of run_s; 0: not known, or none
  std::int64_t block_bytes = 0;             // a rank's vectors of the largest block, in the place of the whole's
  std::int64_t messages_per_step = 0;       // collectives of a group, per joint step
  std::int64_t message_bytes_per_step = 0;  // that a rank sends in those that carry vectors
  std::int64_t product_messages = 0;        // of the collectives, those of a product
  double step_s = 0;                        // of a joint step, with its share of the Lanczos work; 0: not known
  double messages_s = 0;                    // of it: messages, where they do not hide behind arithmetic
};

/// The best layout that fits, or, with fits = false, the one that comes nearest.
///
/// Among layouts that fit, the fastest by the forecast; without measured costs, as many groups as there are probes to
/// keep busy. The basis keeps the vectors' dtype while any layout fits with it, on the device or (GPUs) in host memory,
/// whichever is faster; only then it is narrowed. Where no layout has room for the longest run's basis, it gets as many
/// rows as fit, and thick restarts, if they are enough for the wanted eigenvalues and the least steps of a run.
/// Re-orthogonalisation is never given up unasked.
/// @throws UsageError where what is fixed can't be: groups that don't divide the ranks, more groups than probes is no
///         error; a micro-batch against a static batch; a basis dtype wider than the vectors
Plan make_plan(const PlanInputs& inputs);

/// A change of the options that a demand comes from.
struct DemandChange {
  std::optional<std::int64_t> steps = {}, max_steps = {}, max_basis = {};
  bool reorthogonalize = true;
};
/// The demand after a change, or nothing where the other options forbid it.
using ChangedDemand = std::function<std::optional<Demand>(const DemandChange& change)>;

/// What to change so that it would fit: one short clause each ("--steps 120", "at least 8 ranks with --groups 1",
/// "--basis-dtype bfloat16", "--micro-batch 8", "--reorthogonalization none"), each tried by make_plan.
std::vector<std::string> what_would_fit(const PlanInputs& inputs, const ChangedDemand& changed);

/// Returns the part of given memory that a plan may use: all but 5 % and a constant (32 MiB, on a GPU 512 MiB), which
/// are for what the formulas leave out: allocator rounding, message buffers, small tensors.
std::int64_t usable_bytes(std::int64_t memory_bytes, bool on_gpu);

/// What blocks or features will take: "12 blocks: at most 1 200 products, 40 s, 12 MiB of vectors a rank".
std::string describe_blocks(const Plan& plan, std::int64_t blocks, bool are_features);

/// What each way to keep the parameters comes to, a line each: "replicated: does not fit, …".
std::vector<std::string> describe_ways(const PlanInputs& inputs);

/// The plan as lines of text for people: layout, table of bytes per rank, messages, products, time.
std::vector<std::string> describe(const Plan& plan, const PlanInputs& inputs);

}  // namespace hesspect
