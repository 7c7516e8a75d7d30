// Products, messages and time of a layout.
#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>

#include "plan_model.h"

namespace hesspect::plan_model {
namespace {

// Smaller micro-batches than the one that was measured as best are slower per row: so much for every halving.
constexpr double kHalvingCost = 1.05;
// bytes/s at which a rank passes over its basis.
constexpr double kCpuMemory = 10e9, kGpuMemory = 1e12;
// Of a step, over rows as the vectors are, and over others.
constexpr double kPasses = 2, kPassesApart = 3;
// Vectors read or written in a product beside what the micro-batches do: one copied in, one cleared, one copied out
// and divided.
constexpr double kVectorsPerProduct = 7;

/// Collective calls of a joint step, of however many probes: an all-gather, one that agrees on errors, a
/// reduce-scatter, three all-reduces of Lanczos sums, the stop flag.
constexpr std::int64_t kMessages = 7;
/// Of these, all but the all-gather and the reduce-scatter.
constexpr std::int64_t kSmallMessages = 5;

/// One batch of probes that a group takes through together.
struct Batch {
  double duration = 0;  // seconds, or products where costs are not known
  std::int64_t products = 0;
};

struct Finish {
  double time = 0;
  std::int64_t products = 0;  // of the group that ends last
};

/// List schedule: one group takes `first` at once, then whichever is free takes the next of `count` equal batches and
/// at last the shorter `rest`. All start times are known: the other groups' are whole multiples of a batch's duration,
/// the first group's the same after its first batch.
Finish schedule(int groups, const Batch& first, const Batch& equal, std::int64_t count, const Batch& rest) {
  struct Start {
    double time;
    bool first_group;
    std::int64_t before;  // equal batches that the same group has had
  };
  const double ratio = equal.duration > 0 ? first.duration / equal.duration : 0;
  const auto late = static_cast<std::int64_t>(ratio);  // rounds that the first group misses whole
  const double offset = first.duration - static_cast<double>(late) * equal.duration;
  const std::int64_t others = groups - 1;
  const auto start_of = [&](std::int64_t index) {  // from 0
    if (others == 0) return Start{first.duration + static_cast<double>(index) * equal.duration, true, index};
    if (index < others * late) {
      const std::int64_t round = index / others;
      return Start{static_cast<double>(round) * equal.duration, false, round};
    }
    const std::int64_t since = index - others * late, round = late + since / groups;
    const double time = static_cast<double>(round) * equal.duration;
    return since % groups < others ? Start{time, false, round} : Start{time + offset, true, round - late};
  };
  Finish finish{first.duration, first.products};
  const auto end_with = [&](const Start& start, const Batch& batch) {
    const double end = start.time + batch.duration;
    const std::int64_t products =
        (start.first_group ? first.products : 0) + start.before * equal.products + batch.products;
    if (end > finish.time || (end == finish.time && products > finish.products)) finish = {end, products};
  };
  if (count > 0) end_with(start_of(count - 1), equal);
  if (rest.products > 0) end_with(start_of(count), rest);
  return finish;
}

/// Seconds of the parts of a product, of the slowest rank.
class Times {
 public:
  Times(const PlanInputs& given, const Plan& plan) : given_(given), plan_(plan) {
    const PlanProblem& problem = given.problem;
    const std::int64_t ranks = plan.data_ranks;
    chunk_ = (problem.parameters + ranks - 1) / ranks;
    if (!given.timed()) return;
    const std::int64_t own = problem.rows_of_rank(ranks);
    const std::int64_t rows = problem.static_batch ? plan.micro_batches * plan.micro_batch : own;
    const std::int64_t rebuilt = rows - std::min(rows, plan.kept_graphs * plan.micro_batch);
    const double measured = static_cast<double>(given.cost.micro_batch);
    const double halvings = std::max(0.0, std::log2(measured / static_cast<double>(plan.micro_batch)));
    const double per_row = std::pow(kHalvingCost, halvings) / measured;
    graphs_s_ = static_cast<double>(rebuilt) * per_row * given.cost.graph_s;
    pullbacks_s_ = static_cast<double>(rows) * per_row * given.cost.pullback_s;
    const double kept_s = given.cost.graph_s;  // values and adjoints: two passes; all of a product: eight
    loss_s_ = static_cast<double>(rows) * per_row * (kept_s > 0 ? kept_s / 2 : given.cost.pullback_s / 8);
  }

  /// All that a group does with a block, at a product of the whole's price: a late part's is cheaper.
  double block_s(const BlockDemand& block) const {
    const double share = static_cast<double>(block.parameters) /
                         static_cast<double>(std::max<std::int64_t>(1, given_.problem.parameters));
    return static_cast<double>(block.products) * product_s(1) + share * lanczos_s(block.products) +
           static_cast<double>(block.losses) * loss_s_;
  }

  /// A joint product of k probes, messages included.
  double product_s(std::int64_t k) const {
    if (is_shared())
      return sharded_times(given_, plan_, k).product_s + static_cast<double>(k) * vectors_s() / ranks() + sums_s();
    return graphs_s_ + static_cast<double>(k) * (pullbacks_s_ + vectors_s()) + messages_s(k);
  }

  /// Between the products of one probe's first m steps.
  double lanczos_s(std::int64_t m) const {
    const double steps = static_cast<double>(m);
    const double rows = given_.demand.reorthogonalize ? steps * (steps + 1) / 2 : 2 * steps;
    const double rate = !given_.problem.on_gpu                     ? kCpuMemory
                        : plan_.basis_memory == BasisMemory::kHost ? kHostToGpu
                                                                   : kGpuMemory;
    const bool apart = plan_.basis_memory == BasisMemory::kHost || plan_.basis_dtype != vector_dtype(given_.problem);
    return (apart || !given_.demand.reorthogonalize ? kPassesApart : kPasses) * rows * static_cast<double>(chunk_) *
           static_cast<double>(bytes_of(plan_.basis_dtype)) / rate;
  }

  /// Of a joint step of k probes, messages that nothing hides.
  double exposed_s(std::int64_t k) const {
    return is_shared() ? sharded_times(given_, plan_, k).exposed_s + sums_s() : messages_s(k);
  }

  /// That a rank sends in an all-gather and a reduce-scatter round a ring, for k probes.
  std::int64_t message_bytes(std::int64_t k) const {
    if (is_shared()) return sharded_messages(given_, plan_, k).bytes;
    return 2 * (plan_.data_ranks - 1) * k * chunk_ * given_.problem.element_bytes;
  }

 private:
  bool is_shared() const { return plan_.parameters != ParameterMemory::kReplicated; }
  double ranks() const { return static_cast<double>(plan_.data_ranks); }
  /// The small sums of a step.
  double sums_s() const {
    return static_cast<double>(kSmallMessages) * std::ceil(std::log2(plan_.data_ranks)) * given_.machine.latency_s;
  }
  double vectors_s() const {
    return kVectorsPerProduct * static_cast<double>(given_.problem.parameters) *
           static_cast<double>(given_.problem.element_bytes) / (given_.problem.on_gpu ? kGpuMemory : kCpuMemory);
  }
  double messages_s(std::int64_t k) const {
    if (plan_.data_ranks == 1) return 0;
    const double bytes_s =
        given_.machine.bandwidth > 0 ? static_cast<double>(message_bytes(k)) / given_.machine.bandwidth : 0;
    return bytes_s + static_cast<double>(kMessages) * std::ceil(std::log2(plan_.data_ranks)) * given_.machine.latency_s;
  }

  const PlanInputs& given_;
  const Plan& plan_;
  std::int64_t chunk_ = 0;
  double graphs_s_ = 0, pullbacks_s_ = 0, loss_s_ = 0;
};

/// Blocks in their order, each to the group that is free first.
Finish schedule_blocks(const std::vector<BlockDemand>& blocks, int groups,
                       const std::function<double(const BlockDemand&)>& duration) {
  const auto later = [](const Finish& a, const Finish& b) { return a.time > b.time; };
  std::priority_queue<Finish, std::vector<Finish>, decltype(later)> free(later);
  for (int i = 0; i < groups; ++i) free.push({});
  Finish last;
  for (const BlockDemand& block : blocks) {
    Finish group = free.top();
    free.pop();
    group.time += duration(block);
    group.products += block.products;
    if (group.time >= last.time) last = group;
    free.push(group);
  }
  return last;
}

}  // namespace

void add_forecast(const PlanInputs& given, Plan& plan) {
  const std::int64_t steps = ordinary_steps(given.problem, given.demand);
  const std::int64_t more_steps = longest_steps(given.problem, given.demand) - steps;
  const std::int64_t probes = std::max<std::int64_t>(1, given.demand.probes);
  const std::int64_t together = std::min<std::int64_t>(plan.lock_step, probes);
  const Times times(given, plan);
  const auto of_products = [&](std::int64_t joint, std::int64_t k) {
    return given.timed() ? static_cast<double>(joint) * times.product_s(k) : static_cast<double>(joint * k);
  };
  const auto between = [&](std::int64_t m) { return given.timed() ? times.lanczos_s(m) : 0; };
  const auto batch_of = [&](std::int64_t k) {
    return Batch{of_products(steps, k) + static_cast<double>(k) * between(steps), k * steps};
  };
  // The longest probe goes first, so that nobody waits for it at the end; its fellows fall out when they are done.
  Batch first = batch_of(together);
  first.duration += of_products(given.demand.other_products, 1) + of_products(more_steps, 1) +
                    between(steps + more_steps) - between(steps);
  first.products += given.demand.other_products + more_steps;

  const std::int64_t left = probes - together;
  const Finish finish = schedule(plan.groups, first, batch_of(together), left / together, batch_of(left % together));
  const Finish blocks = schedule_blocks(given.demand.blocks, plan.groups, [&](const BlockDemand& block) {
    return given.timed() ? times.block_s(block) : static_cast<double>(block.products);
  });
  plan.block_products = 0;
  for (const BlockDemand& block : given.demand.blocks) plan.block_products += block.products;
  plan.blocks_s = given.timed() ? blocks.time : 0;
  plan.products = given.demand.other_products + more_steps + probes * steps + plan.block_products;
  plan.products_in_turn = finish.products + blocks.products;
  plan.product_s = given.timed() ? times.product_s(together) / static_cast<double>(together) : 0;
  plan.run_s = given.timed() ? finish.time + blocks.time : 0;
  plan.product_messages = plan.parameters == ParameterMemory::kReplicated
                              ? kMessages - kSmallMessages
                              : sharded_messages(given, plan, together).count;
  plan.messages_per_step = plan.data_ranks > 1 ? kSmallMessages + plan.product_messages : 0;
  if (given.timed() && steps > 0) {
    plan.step_s =
        times.product_s(together) + static_cast<double>(together) * between(steps) / static_cast<double>(steps);
    plan.messages_s = times.exposed_s(together);
  }
  plan.message_bytes_per_step = times.message_bytes(together);
}

}  // namespace hesspect::plan_model
