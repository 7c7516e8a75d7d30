// How a vector is cut over ranks set by set, where parameters are fetched set by set.
//
// A set is some stretches of the vector, laid one behind the other and padded to as many equal chunks as there are
// ranks. A rank's local vector is its chunk of each set, one behind the other; it is a list of stretches of the whole
// vector, with padding between. So one message gathers a set, and nothing else of the vector.
//
// A cut of some entries of a cut vector (VectorCut::of_part) leaves each with the rank that has it.
//
//   VectorCut cut(2);
//   cut.add({{0, 3}, {8, 2}});  // chunks of 3: rank 0 has entries 0 1 2, rank 1 entries 8 9 and one of padding
//   cut.add({{3, 5}});          // chunks of 3: rank 0 has 3 4 5, rank 1 has 6 7 and padding
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace hesspect {

class VectorCut {
 public:
  /// Entries [begin, begin + size) of the whole vector.
  struct Range {
    static constexpr std::int64_t kPadding = -1;
    std::int64_t begin = 0, size = 0;  // begin kPadding: so many entries that are none
    bool operator==(const Range&) const = default;
  };
  struct Set {
    std::vector<Range> ranges;
    std::int64_t size = 0;   // entries, with padding between them
    std::int64_t chunk = 0;  // of each rank, ceil(size / ranks), padded
    std::int64_t local = 0;  // where its chunk begins in a local vector
    bool operator==(const Set&) const = default;
  };

  explicit VectorCut(int ranks = 1) : ranks_(ranks) {}

  /// @param unit  chunks are whole multiples of so many entries
  void add(std::vector<Range> ranges, std::int64_t unit = 1) {
    Set set{std::move(ranges), 0, 0, chunk_};
    for (const Range& range : set.ranges) set.size += range.size;
    const std::int64_t all = ranks_ * unit;
    set.chunk = (set.size + all - 1) / all * unit;
    chunk_ += set.chunk;
    for (const Range& range : set.ranges)
      if (range.begin >= 0) n_ += range.size;
    sets_.push_back(std::move(set));
  }

  /// Begin and end of stretches of a whole vector: ascending, none empty.
  using Stretches = std::vector<std::pair<std::int64_t, std::int64_t>>;

  /// Of a vector that has just these entries of the whole one, in order: each with the rank that has it here.
  VectorCut of_part(const Stretches& part) const {
    std::vector<std::vector<Range>> of_rank(static_cast<std::size_t>(ranks_));
    std::vector<std::int64_t> sizes(of_rank.size());
    std::int64_t most = 0;
    for (std::size_t r = 0; r < of_rank.size(); ++r) {
      for_each_in_part(static_cast<int>(r), part, [&](std::int64_t, std::int64_t begin, std::int64_t size) {
        of_rank[r].push_back({begin, size});
        sizes[r] += size;
      });
      most = std::max(most, sizes[r]);
    }
    std::vector<Range> ranges;
    for (std::size_t r = 0; r < of_rank.size(); ++r) {
      ranges.insert(ranges.end(), of_rank[r].begin(), of_rank[r].end());
      if (sizes[r] < most) ranges.push_back({Range::kPadding, most - sizes[r]});
    }
    VectorCut cut(ranks_);
    cut.add(std::move(ranges));
    return cut;
  }

  /// visit(position in the rank's local vector here, begin in the part's vector, size) for each stretch that a rank has
  /// of the part: in the order in which they lie in its local vector of of_part(part).
  template <class Visit>
  void for_each_in_part(int rank, const Stretches& part, Visit&& visit) const {
    for_each(rank, [&](std::int64_t position, std::int64_t begin, std::int64_t size) {
      std::int64_t before = 0;  // entries of the part
      for (const auto& [from, to] : part) {
        const std::int64_t first = std::max(begin, from), last = std::min(begin + size, to);
        if (first < last) visit(position + (first - begin), before + (first - from), last - first);
        before += to - from;
      }
    });
  }

  int ranks() const { return ranks_; }
  /// Entries of the whole vector, and of a local one.
  std::int64_t n() const { return n_; }
  std::int64_t chunk() const { return chunk_; }
  const std::vector<Set>& sets() const { return sets_; }
  bool operator==(const VectorCut&) const = default;

  /// visit(position in the rank's chunk, begin in the whole vector, size) for each stretch that a rank has of a set.
  template <class Visit>
  static void for_each_in(const Set& set, int rank, Visit&& visit) {
    const std::int64_t first = set.chunk * rank, last = std::min(set.size, first + set.chunk);
    std::int64_t at = 0;  // in the set
    for (const Range& range : set.ranges) {
      const std::int64_t from = std::max(first, at), to = std::min(last, at + range.size);
      if (from < to && range.begin >= 0) visit(from - first, range.begin + (from - at), to - from);
      at += range.size;
    }
  }

  /// visit(position in the rank's local vector, begin in the whole vector, size) for each stretch that a rank has.
  template <class Visit>
  void for_each(int rank, Visit&& visit) const {
    for (const Set& set : sets_)
      for_each_in(set, rank, [&](std::int64_t position, std::int64_t begin, std::int64_t size) {
        visit(set.local + position, begin, size);
      });
  }

  /// As plain numbers, for files: ranks, then of each set its chunk, how many ranges, and begin and size of each.
  std::vector<std::int64_t> numbers() const {
    std::vector<std::int64_t> all{ranks_};
    for (const Set& set : sets_) {
      all.insert(all.end(), {set.chunk, static_cast<std::int64_t>(set.ranges.size())});
      for (const Range& range : set.ranges) all.insert(all.end(), {range.begin, range.size});
    }
    return all;
  }
  /// And back. Nothing where the numbers are of no cut of n entries: ranges that overlap, leave entries out or don't
  /// fit into their chunks.
  static std::optional<VectorCut> from_numbers(const std::vector<std::int64_t>& all, std::int64_t n) {
    if (all.empty() || all[0] < 1 || all[0] > kMostRanks) return std::nullopt;
    VectorCut cut(static_cast<int>(all[0]));
    std::vector<Range> covered;
    for (std::size_t i = 1; i < all.size();) {
      if (all.size() - i < 2 || all[i] < 0 || all[i] > n + kMostRanks || all[i + 1] < 0) return std::nullopt;
      const std::int64_t chunk = all[i];
      const auto count = static_cast<std::uint64_t>(all[i + 1]);
      if (count > (all.size() - i - 2) / 2) return std::nullopt;
      Set set{{}, 0, chunk, cut.chunk_};
      for (std::uint64_t r = 0; r < count; ++r) {
        const Range range{all[i + 2 + 2 * r], all[i + 3 + 2 * r]};
        if (range.begin < 0 || range.size < 1 || range.size > n || range.begin > n - range.size) return std::nullopt;
        set.size += range.size;
        if (set.size > n) return std::nullopt;
        set.ranges.push_back(range);
        covered.push_back(range);
      }
      if (chunk < (set.size + cut.ranks_ - 1) / cut.ranks_) return std::nullopt;
      cut.chunk_ += chunk;
      cut.n_ += set.size;
      cut.sets_.push_back(std::move(set));
      i += 2 + 2 * count;
    }
    std::ranges::sort(covered, {}, &Range::begin);
    std::int64_t next = 0;
    for (const Range& range : covered) {
      if (range.begin != next) return std::nullopt;
      next += range.size;
    }
    return next == n ? std::optional(std::move(cut)) : std::nullopt;
  }

 private:
  static constexpr std::int64_t kMostRanks = std::int64_t{1} << 20;

  int ranks_ = 1;
  std::int64_t n_ = 0, chunk_ = 0;
  std::vector<Set> sets_;
};

}  // namespace hesspect
