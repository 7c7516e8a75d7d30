// A group whose ranks share parameters and vectors: the formulas of docs/plan.md, "Parameters in shards".
//
// Forwards through all segments but the last, then backwards through all: for each, its parameters and its part of the
// vectors are gathered, all micro-batches go through it, and backwards its products are summed over the ranks.
#include <algorithm>

#include "hesspect/core/segment_visits.h"
#include "plan_model.h"

namespace hesspect::plan_model {
namespace {

// In units of one matrix product per layer, and of that for each vector: a sweep forwards; values, tangents, adjoints
// and their tangents.
constexpr double kForward = 1, kForwardTangent = 2, kBoth = 2, kBothTangent = 6;

std::int64_t share_of(std::int64_t total, std::int64_t ranks) { return (total + ranks - 1) / ranks; }

/// What a rank sends of so many bytes that are gathered, or summed, round a ring: all but its own share.
std::int64_t sent(std::int64_t bytes, std::int64_t ranks) { return bytes / ranks * (ranks - 1); }

/// Values and tangents that are held for the way back, of one micro-batch.
std::int64_t held_bytes(const std::vector<PlanSegment>& segments, std::int64_t span, std::int64_t vectors) {
  std::int64_t still = 0, ends = 0, inside = 0, most_inside = 0;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    still += segments[s].crossing_still_bytes;
    inside += segments[s].crossing_active_bytes;
    most_inside = std::max(most_inside, inside);
    if ((s + 1) % static_cast<std::size_t>(span) != 0) continue;
    ends += span > 1 ? segments[s].across_active_bytes : segments[s].crossing_active_bytes;
    inside = 0;
  }
  return still + (1 + vectors) * (ends + (span > 1 ? most_inside : 0));
}

}  // namespace

namespace {

std::vector<SegmentVisit> visits(const std::vector<PlanSegment>& segments, const Plan& plan) {
  if (segments.empty()) return {};
  std::vector<bool> reached;
  for (const PlanSegment& segment : segments) reached.push_back(segment.is_reached);
  const auto span = static_cast<std::size_t>(plan.span);
  return without_unreached(product_visits(segments.size(), span), reached, span);
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
  // Shards in and out for the products taken at once; for each probe a work vector; the gradient, and, where there is
  // one, the start of the next probe.
  const std::int64_t share = share_of(given.sharded.stored_bytes, ranks);
  const std::int64_t vectors = (2 * k + layout.lock_step + 1 + (given.demand.probes > layout.lock_step ? 1 : 0)) * b *
                               share_of(problem.parameters, ranks);
  if (layout.parameters == ParameterMemory::kHost) {
    bytes.share_host = share + vectors;
  } else {
    bytes.parameters = share;
    bytes.vectors += vectors;
  }
  std::int64_t adjoints = 0;
  for (const PlanSegment& s : segments) {
    const std::int64_t worked_with = given.sharded.widens ? b * (s.parameters + s.fixed_parameters) : 0;
    bytes.gathered = std::max(bytes.gathered, s.stored_bytes + worked_with + k * b * s.parameters);
    bytes.sums = std::max(bytes.sums, k * b * s.parameters);
    bytes.transient = std::max(bytes.transient, s.fixed_bytes + k * s.tangent_bytes);
    adjoints = std::max(adjoints, (1 + k) * s.across_active_bytes);
  }
  const std::int64_t at_once = (plan.micro_batches + plan.passes - 1) / plan.passes;
  const std::int64_t held = at_once * held_bytes(segments, plan.span, k);
  bytes.crossing = at_once * adjoints;
  if (plan.crossing_on_host) {
    std::int64_t at_hand = 0;  // of one micro-batch: what a segment reads and leaves
    for (const PlanSegment& s : segments)
      at_hand = std::max(at_hand, s.crossing_still_bytes + 2 * (1 + k) * s.across_active_bytes);
    bytes.crossing_host = held;
    bytes.crossing += at_hand;
  } else {
    bytes.crossing += held;
  }
  if (plan.fetch_ahead) {
    bytes.gathered *= 2;
    bytes.sums *= 2;
  }
  bytes.sums += bytes.sums / ranks;  // as they come back
  if (!problem.on_gpu) bytes.holes = bytes.transient / 8;
}

ShardedMessages sharded_messages(const PlanInputs& given, const Plan& plan, std::int64_t k) {
  if (plan.data_ranks == 1) return {};
  const std::vector<PlanSegment> segments = given.sharded.cut(work_of(plan));
  ShardedMessages messages;
  for (const SegmentVisit& visit : visits(segments, plan)) {
    const PlanSegment& segment = segments[visit.segment];
    const std::int64_t vector_bytes = k * given.problem.element_bytes * segment.parameters;
    messages.count += 1 + k;  // a vector is a message
    messages.bytes += sent(segment.stored_bytes + vector_bytes, plan.data_ranks);
    if (!visit.backwards) continue;
    messages.count += k;
    messages.bytes += sent(vector_bytes, plan.data_ranks);
  }
  messages.count *= plan.passes;
  messages.bytes *= plan.passes;
  return messages;
}

ShardedTimes sharded_times(const PlanInputs& given, const Plan& plan, std::int64_t k) {
  const std::vector<PlanSegment> segments = given.sharded.cut(work_of(plan));
  const std::vector<SegmentVisit> all = visits(segments, plan);
  const double tangents = static_cast<double>(k), ranks = static_cast<double>(plan.data_ranks);
  const PlanMachine& machine = given.machine;
  // Round a ring, a step for each other rank.
  const auto message_s = [&](std::int64_t bytes) {
    if (plan.data_ranks == 1) return 0.0;
    const double rate_s =
        machine.bandwidth > 0 ? static_cast<double>(sent(bytes, plan.data_ranks)) / machine.bandwidth : 0;
    return rate_s + (ranks - 1) * machine.latency_s;
  };
  const auto vector_bytes = [&](const SegmentVisit& visit) {
    return given.problem.element_bytes * segments[visit.segment].parameters;
  };
  const auto fetch_s = [&](const SegmentVisit& visit) {
    const std::int64_t v = vector_bytes(visit), stored = segments[visit.segment].stored_bytes;
    const bool from_host = plan.parameters == ParameterMemory::kHost;
    return message_s(stored) + tangents * message_s(v) +
           (from_host ? (static_cast<double>(stored) + tangents * static_cast<double>(v)) / ranks / kHostToGpu : 0);
  };
  const auto sum_s = [&](const SegmentVisit& visit) {
    return visit.backwards ? tangents * message_s(vector_bytes(visit)) : 0;
  };
  const auto work_s = [&](const SegmentVisit& visit) {
    const double units = visit.backwards ? kBoth + tangents * kBothTangent : kForward + tangents * kForwardTangent;
    return static_cast<double>(plan.micro_batches) / static_cast<double>(plan.passes) * units *
           segments[visit.segment].flops / given.sharded.flops_per_s;
  };
  // Beside a visit's work go the messages of the next one and the sums of the one before, where they are fetched ahead.
  ShardedTimes times;
  double arithmetic_s = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double work = work_s(all[i]), messages = fetch_s(all[i]) + sum_s(all[i]);
    const double beside = (i + 1 < all.size() ? fetch_s(all[i + 1]) : 0) + (i > 0 ? sum_s(all[i - 1]) : 0);
    arithmetic_s += work;
    times.product_s += plan.fetch_ahead ? std::max(work, beside) : work + messages;
  }
  if (plan.fetch_ahead && !all.empty()) times.product_s += fetch_s(all.front()) + sum_s(all.back());
  // There once, and back once for each visit that reads it: on the same stream as the work.
  const double over_s = plan.crossing_on_host ? 3 * static_cast<double>(plan.bytes.crossing_host) / kHostToGpu : 0;
  times.product_s += over_s;
  arithmetic_s += over_s;
  times.exposed_s = static_cast<double>(plan.passes) * (times.product_s - arithmetic_s);
  times.product_s *= static_cast<double>(plan.passes);
  return times;
}

}  // namespace hesspect::plan_model
