// Where to cut a program into segments.
//
// A product in segments holds what crosses any cut, value and tangent, and the values, tangents and adjoints of one
// segment; on ranks that share the parameters also those of one segment, and its products. For a number of sizes of
// segments, cuts are put where few bytes cross; the size with the least peak wins.
#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <set>

#include "hesspect/core/errors.h"
#include "hesspect/tangent/program_cost.h"

namespace hesspect {
namespace {

/// What is alive of a node between the sweeps of its segment, in units of its active output: what its rule keeps and
/// adjoint; and of each tangent: its own, and the adjoint's.
constexpr std::int64_t kFixedCopies = 2, kTangentCopies = 2;
constexpr std::size_t kMostSegments = 256, kMostShardedSegments = 1024;
// Fewer cuts are taken where they do nearly as well.
constexpr double kWorthMoreCuts = 0.97;

std::int64_t fixed_inside(const NodeCost& node) {
  if (node.is_head) return 0;
  return node.fresh_bytes + (kFixedCopies - 1) * node.fresh_active_bytes;
}
std::int64_t tangent_inside(const NodeCost& node) {
  return node.is_head ? 0 : kTangentCopies * node.fresh_active_bytes;
}

/// A program from shapes, or from values where shapes do not do.
ProgramCost cost_of(const TangentProgram& program, const std::vector<at::Tensor>& inputs) {
  try {
    return program_cost(program, inputs, CostRun::kShapes);
  } catch (const InputError&) {
    if (program.program().parameters().empty() || program.program().parameters().front().is_meta()) throw;
    return program_cost(program, inputs, CostRun::kValues);
  }
}

/// Puts cuts where few bytes cross, for segments of a given size.
class Cutter {
 public:
  explicit Cutter(const ProgramCost& cost)
      : cost_(cost), crossing_(cost.nodes.size() + 1, 0), may_cut_(crossing_.size()) {
    for (std::size_t p = 0; p < cost.nodes.size(); ++p) may_cut_[p] = cost.nodes[p].may_cut;
    for (const ValueCost& value : cost.values)
      for (std::size_t p = value.made + 1; value.last_read != ValueCost::kNoNode && p <= value.last_read; ++p)
        crossing_[p] += value.bytes * (value.active ? 2 : 1);
  }
  virtual ~Cutter() = default;

  Cuts best(std::size_t most_segments) const {
    std::int64_t total = 0;
    std::unique_ptr<Held> all = nothing();
    for (std::size_t n = 0; n < cost_.nodes.size(); ++n) total = all->with(n);
    Cuts best;
    std::int64_t least = peak_of(best);
    std::vector<std::int64_t> sizes;
    for (std::size_t segments = 2; segments <= std::min(most_segments, cost_.nodes.size());
         segments += 1 + segments / 8)
      sizes.push_back(total / static_cast<std::int64_t>(segments));
    // No segment takes less than the node that holds most by itself: a table of embeddings is as large as a layer.
    if (is_strict()) {
      sizes.push_back(heaviest_node());
      std::ranges::sort(sizes, std::greater<>());
    }
    for (const std::int64_t size : sizes) {
      Cuts cuts = is_strict() ? with_segments_within(size) : with_segments_of(size);
      const std::int64_t peak = peak_of(cuts);
      if (cuts.empty() || static_cast<double>(peak) > kWorthMoreCuts * static_cast<double>(least)) continue;
      least = peak;
      best = std::move(cuts);
    }
    return best;
  }

 protected:
  /// What the nodes of one segment hold, as it grows.
  struct Held {
    virtual ~Held() = default;
    /// Takes node n in, and returns the segment's bytes.
    virtual std::int64_t with(std::size_t n) = 0;
  };
  virtual std::unique_ptr<Held> nothing() const = 0;
  /// Whether segments stay within their bytes wherever they can, and sizes besides those of equal shares are tried.
  virtual bool is_strict() const { return false; }
  virtual std::int64_t peak_of(const Cuts& cuts) const = 0;

  const ProgramCost& cost_;
  std::vector<std::int64_t> crossing_;  // per position: of a cut before that node
  std::vector<bool> may_cut_;           // per position

 private:
  std::int64_t heaviest_node() const {
    std::int64_t most = 1;
    for (std::size_t n = 0; n < cost_.nodes.size(); ++n) most = std::max(most, nothing()->with(n));
    return most;
  }

  /// Segments of no more than these bytes, wherever the list may be cut so; each ends where the fewest bytes cross in
  /// its last half, or before that where the next node would be too much.
  Cuts with_segments_within(std::int64_t bytes) const {
    struct Best {
      std::size_t position = 0;
      std::int64_t crossing = std::numeric_limits<std::int64_t>::max();
    };
    Cuts cuts;
    for (std::size_t begin = 0; begin < cost_.nodes.size();) {
      const std::unique_ptr<Held> segment = nothing();
      Best late, early;
      bool is_full = false;
      for (std::size_t n = begin; n < cost_.nodes.size() && !is_full; ++n) {
        const std::int64_t held = segment->with(n);
        is_full = held > bytes && (late.position > 0 || early.position > 0);
        const std::size_t p = n + 1;
        if (is_full || p >= cost_.nodes.size() || !may_cut_[p]) continue;
        Best& best = 2 * held < bytes ? early : late;
        if (crossing_[p] <= best.crossing) best = {p, crossing_[p]};
      }
      if (!is_full) break;
      begin = late.position > 0 ? late.position : early.position;
      cuts.push_back(begin);
    }
    return cuts;
  }

  /// Segments of about so many bytes inside, each ending where the fewest bytes cross in its last half.
  Cuts with_segments_of(std::int64_t bytes) const {
    constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
    Cuts cuts;
    std::int64_t held = 0, least = kNone;
    std::unique_ptr<Held> segment = nothing();
    std::size_t best = 0;
    for (std::size_t n = 0; n < cost_.nodes.size(); ++n) {
      if (held > bytes && best > 0) {
        cuts.push_back(best);
        segment = nothing();
        for (std::size_t m = best; m < n; ++m) segment->with(m);
        least = kNone;
        best = 0;
      }
      held = segment->with(n);
      const std::size_t p = n + 1;
      if (p >= cost_.nodes.size() || !may_cut_[p] || 2 * held < bytes || crossing_[p] > least) continue;
      least = crossing_[p];
      best = p;
    }
    return cuts;
  }
};

/// For one process that has all parameters, and a product of one vector at a time.
class WholeCutter final : public Cutter {
 public:
  using Cutter::Cutter;

 private:
  struct Inside final : Held {
    explicit Inside(const ProgramCost& the_cost) : cost(the_cost) {}
    std::int64_t with(std::size_t n) override {
      return bytes += fixed_inside(cost.nodes[n]) + tangent_inside(cost.nodes[n]);
    }
    const ProgramCost& cost;
    std::int64_t bytes = 0;
  };
  std::unique_ptr<Held> nothing() const override { return std::make_unique<Inside>(cost_); }

  std::int64_t peak_of(const Cuts& cuts) const override {
    std::int64_t across = 0, largest = 0, held = 0;
    for (const ValueCost& value : cost_.values) {
      const auto cut = std::ranges::upper_bound(cuts, value.made);
      const std::size_t read = value.last_read == ValueCost::kNoNode ? 0 : value.last_read;
      if (cut != cuts.end() && *cut <= read) across += value.bytes * (value.active ? 2 : 1);
    }
    std::size_t next = 0;
    for (std::size_t n = 0; n < cost_.nodes.size(); ++n) {
      if (next < cuts.size() && cuts[next] == n) {
        held = 0;
        ++next;
      }
      held += fixed_inside(cost_.nodes[n]) + tangent_inside(cost_.nodes[n]);
      largest = std::max(largest, held);
    }
    return across + largest;
  }
};

/// For ranks that share the parameters, and have those of a segment at a time.
class ShardedCutter final : public Cutter {
 public:
  ShardedCutter(const ProgramCost& cost, const ShardedSettings& run) : Cutter(cost), run_(run) {
    for (const ValueCost& value : cost.values)
      for (std::size_t p = value.made + 1;
           !value.viewed.empty() && value.last_read != ValueCost::kNoNode && p <= value.last_read; ++p)
        may_cut_[p] = false;
    for (std::size_t i = 0; i < cost.parameters.size(); ++i) {
      const ParameterCost& one = cost.parameters[i];
      const std::int64_t stored = run.stored_bytes.empty() ? one.stored_bytes : run.stored_bytes.at(i);
      gathered_.push_back(2 * (stored + one.run_bytes + run.tangents * one.vector_bytes) +
                          run.tangents * one.vector_bytes);
      share_ += (stored + (2 + 2 * run.tangents) * one.vector_bytes) / run.ranks;
    }
  }

 private:
  struct Inside final : Held {
    explicit Inside(const ShardedCutter& the_cutter) : cutter(the_cutter) {}
    std::int64_t with(std::size_t n) override {
      const NodeCost& node = cutter.cost_.nodes[n];
      const std::int64_t k = cutter.run_.tangents;
      bytes += fixed_inside(node) + 2 * node.scores_bytes + k * (tangent_inside(node) + node.scores_bytes);
      for (const std::size_t i : node.parameters)
        if (read.insert(i).second) bytes += cutter.gathered_[i];
      return bytes;
    }
    const ShardedCutter& cutter;
    std::set<std::size_t> read;
    std::int64_t bytes = 0;
  };
  std::unique_ptr<Held> nothing() const override { return std::make_unique<Inside>(*this); }
  bool is_strict() const override { return true; }
  std::int64_t peak_of(const Cuts& cuts) const override { return share_ + sharded_bytes(cost_, cuts, run_).total(); }

  const ShardedSettings& run_;
  std::vector<std::int64_t> gathered_;  // per parameter: what a segment that reads it holds for it
  std::int64_t share_ = 0;
};

}  // namespace

std::vector<SegmentCost> segment_costs(const ProgramCost& cost, const Cuts& cuts,
                                       const std::vector<std::int64_t>& stored_bytes) {
  std::vector<SegmentCost> segments(cuts.size() + 1);
  for (std::size_t s = 0; s < segments.size(); ++s) {
    SegmentCost& segment = segments[s];
    segment.begin = s == 0 ? 0 : cuts[s - 1];
    segment.end = s < cuts.size() ? cuts[s] : cost.nodes.size();
    std::set<std::size_t> read;
    for (std::size_t n = segment.begin; n < segment.end; ++n) {
      const NodeCost& node = cost.nodes[n];
      read.insert(node.parameters.begin(), node.parameters.end());
      segment.flops += node.flops;
      segment.fixed_bytes += fixed_inside(node) + 2 * node.scores_bytes;
      segment.tangent_bytes += tangent_inside(node) + node.scores_bytes;
    }
    segment.parameters.assign(read.begin(), read.end());
    for (const std::size_t i : segment.parameters) {
      segment.gathered.numel += cost.parameters[i].numel;
      segment.gathered.run_bytes += cost.parameters[i].run_bytes;
      segment.gathered.vector_bytes += cost.parameters[i].vector_bytes;
      segment.gathered.stored_bytes += stored_bytes.empty() ? cost.parameters[i].stored_bytes : stored_bytes.at(i);
    }
  }
  const auto segment_of = [&](std::size_t n) {
    return static_cast<std::size_t>(std::ranges::upper_bound(cuts, n) - cuts.begin());
  };
  for (const ValueCost& value : cost.values) {
    if (value.last_read == ValueCost::kNoNode) continue;
    const std::size_t made = segment_of(value.made), read = segment_of(value.last_read);
    if (read == made) continue;
    (value.active ? segments[made].crossing_active_bytes : segments[made].crossing_still_bytes) += value.bytes;
    for (std::size_t s = made; value.active && s < read; ++s) segments[s].across_active_bytes += value.bytes;
  }
  return segments;
}

ShardedBytes sharded_bytes(const ProgramCost& cost, const Cuts& cuts, const ShardedSettings& run) {
  ShardedBytes bytes;
  const std::int64_t k = run.tangents;
  std::int64_t crossing = 0, adjoints = 0;
  for (const SegmentCost& segment : segment_costs(cost, cuts, run.stored_bytes)) {
    const ParameterCost& read = segment.gathered;
    bytes.gathered = std::max(bytes.gathered, 2 * (read.stored_bytes + read.run_bytes + k * read.vector_bytes));
    bytes.sums = std::max(bytes.sums, k * read.vector_bytes);
    bytes.inside = std::max(bytes.inside, segment.inside_bytes(k));
    crossing += segment.crossing_still_bytes + (1 + k) * segment.crossing_active_bytes;
    adjoints = std::max(adjoints, (1 + k) * segment.across_active_bytes);
  }
  bytes.crossing = run.micro_batches * (crossing + adjoints);
  return bytes;
}

Cuts find_cuts(const ProgramCost& cost, const ShardedSettings& run) {
  return ShardedCutter(cost, run).best(kMostShardedSegments);
}

Cuts find_cuts(const TangentProgram& program, const std::vector<at::Tensor>& inputs, const ShardedSettings& run) {
  return find_cuts(cost_of(program, inputs), run);
}

Cuts find_cuts(const TangentProgram& program, const std::vector<at::Tensor>& inputs) {
  return WholeCutter(cost_of(program, inputs)).best(kMostSegments);
}

}  // namespace hesspect
