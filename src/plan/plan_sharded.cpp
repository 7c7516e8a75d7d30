// A group whose ranks share parameters and vectors: the formulas of docs/plan.md, "Parameters in shards".
//
// Forwards through all segments but the last, then backwards through all: for each, its parameters and its part of the
// vectors are gathered, all micro-batches go through it, and backwards its products are summed over the ranks.
#include <algorithm>

#include "plan_model.h"

namespace hesspect::plan_model {
namespace {

// In units of one matrix product per layer, and of that for each vector: a sweep forwards; values, tangents, adjoints
// and their tangents.
constexpr double kForward = 1, kForwardTangent = 2, kBoth = 2, kBothTangent = 6;

std::int64_t share_of(std::int64_t total, std::int64_t ranks) { return (total + ranks - 1) / ranks; }

/// What a rank sends of so many bytes that are gathered, or summed, round a ring: all but its own share.
std::int64_t sent(std::int64_t bytes, std::int64_t ranks) { return bytes / ranks * (ranks - 1); }

/// One visit of a segment.
struct Visit {
  const PlanSegment* segment;
  bool backwards;
};

std::vector<Visit> visits(const std::vector<PlanSegment>& segments) {
  std::vector<Visit> all;
  for (std::size_t s = 0; s + 1 < segments.size(); ++s) all.push_back({&segments[s], false});
  for (std::size_t s = segments.size(); s-- > 0;) all.push_back({&segments[s], true});
  return all;
}

}  // namespace

ShardedWork work_of(const Plan& plan) {
  return {plan.data_ranks, plan.micro_batch, std::max<std::int64_t>(1, plan.micro_batches), plan.joint};
}

void add_sharded_bytes(const PlanInputs& given, const Layout& layout, std::int64_t joint, Plan& plan) {
  const PlanProblem& problem = given.problem;
  const std::int64_t ranks = plan.data_ranks, b = problem.element_bytes, k = joint;
  const std::int64_t rows = std::max<std::int64_t>(1, problem.rows_of_rank(ranks));
  plan.product = ProductMode::kSegments;
  plan.micro_batch = problem.static_batch ? layout.micro_batch : std::clamp<std::int64_t>(layout.micro_batch, 1, rows);
  plan.micro_batches = (rows + plan.micro_batch - 1) / plan.micro_batch;
  const std::vector<PlanSegment> segments = given.sharded.cut(work_of(plan));
  plan.segments = std::ssize(segments);

  PlanBytes& bytes = plan.bytes;
  // Shards in and out for the products taken at once; for each probe a work vector; the gradient, and the start of the
  // next probe.
  const std::int64_t share = share_of(given.sharded.stored_bytes, ranks);
  const std::int64_t vectors = (2 * k + layout.lock_step + 2) * b * share_of(problem.parameters, ranks);
  if (layout.parameters == ParameterMemory::kHost) {
    bytes.share_host = share + vectors;
  } else {
    bytes.parameters = share;
    bytes.vectors += vectors;
  }
  std::int64_t crossing = 0, adjoints = 0;
  for (const PlanSegment& s : segments) {
    const std::int64_t worked_with = given.sharded.widens ? b * s.parameters : 0;
    bytes.gathered = std::max(bytes.gathered, s.stored_bytes + worked_with + k * b * s.parameters);
    bytes.sums = std::max(bytes.sums, k * b * s.parameters);
    bytes.transient = std::max(bytes.transient, s.fixed_bytes + k * s.tangent_bytes);
    crossing += s.crossing_still_bytes + (1 + k) * s.crossing_active_bytes;
    adjoints = std::max(adjoints, (1 + k) * s.across_active_bytes);
  }
  bytes.crossing = plan.micro_batches * (crossing + adjoints);
  if (!problem.on_gpu) bytes.holes = bytes.transient / 8;
}

ShardedMessages sharded_messages(const PlanInputs& given, const Plan& plan, std::int64_t k) {
  if (plan.data_ranks == 1) return {};
  const std::vector<PlanSegment> segments = given.sharded.cut(work_of(plan));
  ShardedMessages messages;
  for (const Visit& visit : visits(segments)) {
    const std::int64_t vector_bytes = k * given.problem.element_bytes * visit.segment->parameters;
    messages.count += 1 + k;  // a vector is a message
    messages.bytes += sent(visit.segment->stored_bytes + vector_bytes, plan.data_ranks);
    if (!visit.backwards) continue;
    messages.count += k;
    messages.bytes += sent(vector_bytes, plan.data_ranks);
  }
  return messages;
}

ShardedTimes sharded_times(const PlanInputs& given, const Plan& plan, std::int64_t k) {
  const std::vector<PlanSegment> segments = given.sharded.cut(work_of(plan));
  const std::vector<Visit> all = visits(segments);
  const double tangents = static_cast<double>(k), ranks = static_cast<double>(plan.data_ranks);
  const PlanMachine& machine = given.machine;
  // Round a ring, a step for each other rank.
  const auto message_s = [&](std::int64_t bytes) {
    if (plan.data_ranks == 1) return 0.0;
    const double rate_s =
        machine.bandwidth > 0 ? static_cast<double>(sent(bytes, plan.data_ranks)) / machine.bandwidth : 0;
    return rate_s + (ranks - 1) * machine.latency_s;
  };
  const auto vector_bytes = [&](const Visit& visit) { return given.problem.element_bytes * visit.segment->parameters; };
  const auto fetch_s = [&](const Visit& visit) {
    const std::int64_t v = vector_bytes(visit), stored = visit.segment->stored_bytes;
    const bool from_host = plan.parameters == ParameterMemory::kHost;
    return message_s(stored) + tangents * message_s(v) +
           (from_host ? (static_cast<double>(stored) + tangents * static_cast<double>(v)) / ranks / kHostToGpu : 0);
  };
  const auto sum_s = [&](const Visit& visit) {
    return visit.backwards ? tangents * message_s(vector_bytes(visit)) : 0;
  };
  ShardedTimes times;
  for (const Visit& visit : all) {  // runs don't fetch ahead: no message hides behind arithmetic
    const double units = visit.backwards ? kBoth + tangents * kBothTangent : kForward + tangents * kForwardTangent;
    times.exposed_s += fetch_s(visit) + sum_s(visit);
    times.product_s +=
        static_cast<double>(plan.micro_batches) * units * visit.segment->flops / given.sharded.flops_per_s;
  }
  times.product_s += times.exposed_s;
  return times;
}

}  // namespace hesspect::plan_model
