// Which of a model's parameters the entries of a vector are.
//
// Where rows of tables are left out of the vectors (rows_in_use.h in room `model`), a vector's entries are some of the
// model's parameters, in the model's order. Random entries depend on a parameter's number in the whole model, so that
// they are the same whatever is left out.
//
//   EntryNumbers numbers;
//   numbers.add(0, 10), numbers.add(30, 5);  // position 12 holds parameter 32
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <vector>

namespace hesspect {

class EntryNumbers {
 public:
  /// Appends `count` entries of the numbers from `number` on, which is above all before.
  void add(std::int64_t number, std::int64_t count) {
    if (count == 0) return;
    if (!runs_.empty() && runs_.back().number + (size_ - runs_.back().position) == number) {
      size_ += count;
      return;
    }
    runs_.push_back({size_, number});
    size_ += count;
  }

  /// Entries of a vector.
  std::int64_t size() const { return size_; }

  /// visit(position, number, count) for stretches that follow each other in both, of the positions
  /// [begin, begin + count).
  template <class Visit>
  void for_each(std::int64_t begin, std::int64_t count, Visit&& visit) const {
    const std::int64_t end = std::min(size_, begin + count);
    auto run = std::upper_bound(runs_.begin(), runs_.end(), begin,
                                [](std::int64_t position, const Run& one) { return position < one.position; });
    if (run != runs_.begin()) --run;
    for (; run != runs_.end() && run->position < end; ++run) {
      const std::int64_t run_end = std::next(run) == runs_.end() ? size_ : std::next(run)->position;
      const std::int64_t first = std::max(begin, run->position), last = std::min(end, run_end);
      if (first < last) visit(first, run->number + (first - run->position), last - first);
    }
  }

  /// The i-th number, from 0 on, that no entry has, below `all`; nothing where there are not so many.
  std::optional<std::int64_t> left_out(std::int64_t i, std::int64_t all) const {
    std::int64_t next = 0;  // the first number behind the runs so far
    for (std::size_t r = 0; r <= runs_.size(); ++r) {
      const std::int64_t number = r < runs_.size() ? runs_[r].number : all;
      if (i < number - next) return next + i;
      i -= number - next;
      if (r == runs_.size()) break;
      next = number + (r + 1 < runs_.size() ? runs_[r + 1].position : size_) - runs_[r].position;
    }
    return std::nullopt;
  }

 private:
  struct Run {
    std::int64_t position, number;
  };
  std::vector<Run> runs_;  // by position
  std::int64_t size_ = 0;
};

}  // namespace hesspect
