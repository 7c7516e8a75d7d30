#include "plan_model.h"

#include <algorithm>
#include <bit>

#include "hesspect/core/buffer_sizes.h"

namespace hesspect::plan_model {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;
// A GPU's caching allocator splits and rounds its blocks, and a basis in host memory passes through buffers there.
constexpr std::int64_t kSlackOnCpu = 32 * kMiB;
constexpr std::int64_t kSlackOnGpu = 512 * kMiB;

/// a · b, at most 10^18: absurd requests must not overflow into small ones.
std::int64_t times(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t kMost = 1'000'000'000'000'000'000;
  return static_cast<double>(a) * static_cast<double>(b) > static_cast<double>(kMost) ? kMost : a * b;
}

// Freed blocks that a process keeps for reuse: large_blocks.h lets them be an eighth of the most that was in use at
// once.
constexpr double kHoles = 0.125;

std::int64_t share(double part, std::int64_t bytes) {
  return static_cast<std::int64_t>(part * static_cast<double>(bytes));
}

std::int64_t divided_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Pinned memory comes in powers of two (ATen/core/CachingHostAllocator.h), one for every block of rows.
std::int64_t pinned_bytes(std::int64_t rows, std::int64_t row_bytes) {
  const auto block = static_cast<std::uint64_t>(times(kBasisBlockRows, row_bytes));
  return times(divided_up(rows, kBasisBlockRows), static_cast<std::int64_t>(std::bit_ceil(block)));
}

/// The basis of all probes that the group with the longest one advances together.
void add_basis(const PlanInputs& given, const Layout& layout, std::int64_t chunk, Plan& plan) {
  PlanBytes& bytes = plan.bytes;
  const std::int64_t n = given.problem.parameters, full = given.problem.element_bytes;
  // The longest one's basis stays beside those of the probes after it.
  const bool others_later = given.demand.keeps_basis && given.demand.probes > layout.lock_step;
  const std::int64_t probes = layout.lock_step + (others_later ? 1 : 0);
  if (!given.demand.reorthogonalize) {
    bytes.basis = times(2 * probes * full, chunk);
    return;
  }
  const auto rows = [n](std::int64_t steps) { return std::max<std::int64_t>(2, std::min(steps + 1, n)); };
  const std::int64_t ordinary = rows(std::max(ordinary_steps(given.problem, given.demand), given.demand.most_steps));
  std::int64_t longest = rows(longest_steps(given.problem, given.demand));
  if (given.demand.max_basis > 0) longest = std::max(ordinary, std::min(longest, given.demand.max_basis + 1));
  const std::int64_t element = bytes_of(layout.basis.dtype), row_bytes = times(element, chunk);
  if (layout.basis.memory == BasisMemory::kHost) {
    bytes.basis_host = times(probes - 1, pinned_bytes(ordinary, row_bytes)) + pinned_bytes(longest, row_bytes);
    // Two buffers on the device through which rows come by, and those of one, and the vector, in double.
    const std::int64_t entries = std::min(times(kBasisBlockRows + 1, chunk), kEntriesInDouble);
    bytes.vectors += times(entries, 2 * element + (element < 8 ? 8 : 0));
  } else {
    bytes.basis = times((probes - 1) * ordinary + longest, row_bytes);
  }
  bytes.basis += times(given.demand.other_rows * full, chunk);
  // A block's vectors come when the whole's have gone.
  plan.block_bytes = times(given.demand.block_rows, row_bytes);
  if (layout.basis.memory == BasisMemory::kHost)
    bytes.basis_host = std::max(bytes.basis_host, pinned_bytes(given.demand.block_rows, row_bytes));
  else
    bytes.basis = std::max(bytes.basis, plan.block_bytes);
  // Beside stored rows that are narrower or elsewhere, the recurrence keeps its own two vectors.
  if (layout.basis.memory == BasisMemory::kHost || element < full) bytes.basis += times(2 * probes * full, chunk);
}

/// Kept graphs, the transient of a product and the holes that they leave, in `room` bytes.
void add_activations(const PlanInputs& given, const Layout& layout, std::int64_t rows, std::int64_t room, Plan& plan) {
  const BatchCost& cost = given.cost;
  const std::int64_t cap = keeps(cost.product) ? given.request.graph_bytes : 0;
  plan.product = cost.product;
  if (!given.measured()) {
    // Gradients and a product are there at least.
    plan.bytes.transient = times(2 * given.problem.element_bytes, given.problem.parameters);
    const std::int64_t half = std::max<std::int64_t>(0, room - plan.bytes.transient) / 2;
    plan.graph_budget_bytes = cap >= 0 ? std::min(cap, half) : half;
    plan.micro_batch = layout.micro_batch;
    plan.micro_batches = layout.micro_batch > 0 ? divided_up(rows, layout.micro_batch) : 0;
    return;
  }
  const std::int64_t batch =
      given.problem.static_batch ? layout.micro_batch : std::max<std::int64_t>(1, std::min(layout.micro_batch, rows));
  const std::int64_t count = divided_up(rows, batch);
  const std::int64_t last = given.problem.static_batch ? batch : rows - (count - 1) * batch;
  const auto graph = [&cost](std::int64_t r) { return cost.graph_fixed_bytes + times(r, cost.graph_row_bytes); };
  const std::int64_t product = cost.transient_fixed_bytes + times(batch, cost.transient_row_bytes);
  const std::int64_t building = cost.building_fixed_bytes + times(batch, cost.building_row_bytes);
  // What is kept is made before there is a basis.
  const std::int64_t transient = std::max(product, building - plan.bytes.basis);
  const std::int64_t all = times(count - 1, graph(batch)) + graph(last);
  if (!given.problem.on_gpu) room = share(1 / (1 + kHoles), room);
  plan.micro_batch = batch;
  plan.micro_batches = count;
  plan.bytes.outputs = times(batch, cost.output_row_bytes);
  plan.bytes.transient = transient;
  const std::int64_t budget = cap >= 0 ? std::min(cap, room - transient) : room - transient;
  if (cap != 0 && all <= budget) {
    plan.kept_graphs = count;
    plan.bytes.kept_graphs = all;
  } else {
    // What is not kept is rebuilt in every product, one at a time.
    plan.bytes.transient = graph(batch) + std::max(product, building);
    const std::int64_t left = room - plan.bytes.transient;
    const std::int64_t each = std::max<std::int64_t>(1, graph(batch));
    plan.kept_graphs = std::clamp<std::int64_t>((cap >= 0 ? std::min(cap, left) : left) / each, 0, count - 1);
    plan.bytes.kept_graphs = plan.kept_graphs * graph(batch);
  }
  // Graphs may turn out a little larger than the trial's; the margin has room for that. The last one, of fewer rows, is
  // kept only where there is room for a whole one.
  plan.graph_budget_bytes = plan.kept_graphs * graph(batch);
  plan.graph_budget_bytes += plan.kept_graphs > 0 ? plan.graph_budget_bytes / 50 + kMiB : 0;
  if (cap >= 0) plan.graph_budget_bytes = std::min(plan.graph_budget_bytes, cap);
  if (!given.problem.on_gpu) plan.bytes.holes = share(kHoles, plan.bytes.kept_graphs + plan.bytes.transient);
}

}  // namespace

ElementType vector_dtype(const PlanProblem& problem) {
  return problem.element_bytes == 8 ? ElementType::kF64 : ElementType::kF32;
}

std::int64_t ordinary_steps(const PlanProblem& problem, const Demand& demand) {
  return std::min(demand.steps, problem.parameters);
}

std::int64_t longest_steps(const PlanProblem& problem, const Demand& demand) {
  return std::min(std::max(demand.steps, demand.longest_steps), problem.parameters);
}

namespace {

/// With the messages of the next segment beside the work on one where that hides them, and what crosses cuts held,
/// as far as there is room: else beside a GPU in host memory, in several passes, each of a part of the micro-batches,
/// or made again within spans of segments. Where nothing fits, the plan that takes least.
/// @param plan  all but what add_sharded_bytes adds
Plan sharded_that_fits(const PlanInputs& given, const Layout& layout, std::int64_t joint, const Plan& plan) {
  const bool one_rank = plan.data_ranks == 1 && layout.parameters != ParameterMemory::kHost;
  const bool ahead = !one_rank && given.request.fetch_ahead.value_or(given.machine.overlaps);
  Plan best;
  const auto fits = [&](std::int64_t passes, std::int64_t span, bool on_host = false) {
    for (const bool fetch_ahead : {true, false}) {
      if (fetch_ahead ? !ahead : ahead && given.request.fetch_ahead.has_value()) continue;
      Plan one = plan;
      one.fetch_ahead = fetch_ahead;
      one.passes = passes;
      one.span = span;
      one.crossing_on_host = on_host;
      add_sharded_bytes(given, layout, joint, one);
      one.fits = excess_bytes(given, one) == 0;
      if (one.fits || best.segments == 0 || excess_bytes(given, one) < excess_bytes(given, best)) best = one;
      if (one.fits) return true;
    }
    return false;
  };
  if (fits(1, 1)) return best;
  if (given.problem.on_gpu && given.machine.host_memory_bytes > 0 && fits(1, 1, /*on_host=*/true)) return best;
  const std::int64_t most_passes = best.micro_batches, segments = best.segments;
  for (std::int64_t part = 2; part < 2 * std::max(most_passes, segments); part *= 2) {
    if (part < 2 * most_passes && fits(std::min(part, most_passes), 1)) return best;
    if (part < segments && fits(1, part)) return best;
    if (part < segments && most_passes > 1 && fits(most_passes, part)) return best;
  }
  return best;
}

/// @param joint  products that are taken at once, at most
Plan with_joint(const PlanInputs& given, const Layout& layout, std::int64_t joint) {
  const PlanProblem& problem = given.problem;
  Plan plan;
  plan.groups = layout.groups;
  plan.data_ranks = given.machine.world / layout.groups;
  plan.lock_step = static_cast<int>(layout.lock_step);
  plan.joint = static_cast<int>(joint);
  plan.basis_dtype = layout.basis.dtype;
  plan.basis_memory = layout.basis.memory;
  plan.max_basis = given.demand.max_basis;

  const std::int64_t n = problem.parameters, b = problem.element_bytes, ranks = plan.data_ranks;
  const std::int64_t chunk = divided_up(n, ranks), rows = problem.rows_of_rank(ranks);
  plan.parameters = layout.parameters;
  PlanBytes& bytes = plan.bytes;
  bytes.process = problem.process_bytes;
  if (layout.parameters != ParameterMemory::kReplicated) {
    bytes.buffers = problem.buffer_bytes;
    bytes.data = times(rows, problem.row_bytes);
    add_basis(given, layout, chunk, plan);
    return sharded_that_fits(given, layout, joint, plan);
  }
  bytes.parameters = times(n, b);
  bytes.buffers = problem.buffer_bytes;
  bytes.data = times(rows, problem.row_bytes);
  // The operator holds whole vectors in and out for as many products as it is ever given at once; where there are
  // several shards, those that are packed to be sent. There are a work vector for each probe, the gradient, and the
  // start of the next probe.
  const std::int64_t packed = ranks > 1 && joint > 1 ? joint : 0;
  bytes.vectors = times(2 * joint * b, chunk * ranks) + times((packed + layout.lock_step + 2) * b, chunk);
  if (ranks > 1 && !problem.on_gpu) bytes.vectors += std::min(kSumAtOnceBytes, times(joint * b, chunk * ranks));
  add_basis(given, layout, chunk, plan);
  const std::int64_t room = usable_bytes(given.machine.memory_bytes, problem.on_gpu) - bytes.total();
  add_activations(given, layout, std::max<std::int64_t>(1, rows), room, plan);
  plan.fits = excess_bytes(given, plan) == 0;
  return plan;
}

}  // namespace

Plan with_bytes(const PlanInputs& given, const Layout& layout) {
  const std::int64_t least = std::max(layout.lock_step, given.demand.joint);
  const std::int64_t wanted = std::max(least, given.demand.joint_where_room);
  Plan plan = with_joint(given, layout, wanted);
  return plan.fits || wanted == least ? plan : with_joint(given, layout, least);
}

std::int64_t excess_bytes(const PlanInputs& given, const Plan& plan) {
  const auto over = [](std::int64_t needed, std::int64_t usable) {
    return needed > 0 ? std::max<std::int64_t>(0, needed - usable) : 0;
  };
  return over(plan.bytes.total(), usable_bytes(given.machine.memory_bytes, given.problem.on_gpu)) +
         over(plan.bytes.total_host(), usable_bytes(given.machine.host_memory_bytes, /*on_gpu=*/false));
}

}  // namespace hesspect::plan_model

namespace hesspect {

std::int64_t usable_bytes(std::int64_t memory_bytes, bool on_gpu) {
  return memory_bytes - memory_bytes / 20 - (on_gpu ? plan_model::kSlackOnGpu : plan_model::kSlackOnCpu);
}

}  // namespace hesspect
