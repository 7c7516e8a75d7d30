#include "grouped_rows.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "hesspect/krylov/vector_math.h"

namespace hesspect {

std::int64_t RowGrouping::group_of(std::int64_t row) const {
  // The inverse of begin(), which rounds down.
  std::int64_t group = std::min(groups - 1, (row / unit * groups + groups - 1) / (rows / unit));
  while (group > 0 && begin(group) > row) --group;
  while (group + 1 < groups && begin(group + 1) <= row) ++group;
  return group;
}

std::vector<GroupedRange> cut_at_groups(const RowGrouping& grouping, RowRange rows, std::int64_t size) {
  std::vector<GroupedRange> parts;  // each group's
  for (std::int64_t at = rows.begin; at < rows.end;) {
    const std::int64_t group = grouping.group_of(at);
    const std::int64_t end = std::min(rows.end, grouping.begin(group + 1));
    const bool is_short = end - at < grouping.fewest;
    if (is_short && !parts.empty())
      parts.back().range.end = end;
    else if (!parts.empty() && parts.back().range.size() < grouping.fewest)
      parts.back() = {{parts.back().range.begin, end}, group};
    else
      parts.push_back({{at, end}, group});
    at = end;
  }
  std::vector<GroupedRange> ranges;
  for (const GroupedRange& part : parts) {
    const std::int64_t units = part.range.size() / grouping.unit;
    const std::int64_t count = (part.range.size() + size - 1) / size;
    for (std::int64_t i = 0; i < count; ++i)
      ranges.push_back({{part.range.begin + grouping.unit * (units * i / count),
                         part.range.begin + grouping.unit * (units * (i + 1) / count)},
                        part.group});
  }
  return ranges;
}

std::int64_t choose_groups(std::span<const double> counts) {
  for (std::int64_t groups = kMostAutoGroups; groups >= kLeastAutoGroups; --groups)
    if (const double count = counts[static_cast<std::size_t>(groups)]; count > 0 && count <= 1.1 * counts.front())
      return groups;
  return 0;
}

GroupDots::GroupDots(std::int64_t vectors, std::int64_t groups, std::vector<at::Tensor> others,
                     std::vector<std::int64_t> segments)
    : vectors_(vectors), groups_(groups), others_(std::move(others)), segments_(std::move(segments)) {
  reset();
}

void GroupDots::reset() {
  const std::size_t each = (1 + others_.size()) * (segments_.size() - 1) * static_cast<std::size_t>(vectors_);
  before_.assign(each, 0.0);
  sums_.assign(each * static_cast<std::size_t>(groups_), 0.0);
}

void GroupDots::end(std::int64_t group, const at::Tensor& x, const at::Tensor& sums) {
  const at::NoGradGuard no_grad;
  const std::size_t rows = 1 + others_.size(), segments = segments_.size() - 1;
  for (std::int64_t k = 0; k < vectors_; ++k)
    for (std::size_t s = 0; s < segments; ++s) {
      const std::int64_t from = segments_[s], length = segments_[s + 1] - from;
      if (length == 0) continue;
      std::vector<at::Tensor> with{x[k].narrow(0, from, length).unsqueeze(0)};
      for (const at::Tensor& other : others_) with.push_back(other.narrow(0, from, length).unsqueeze(0));
      const std::vector<double> now = dots(with, sums[k].narrow(0, from, length));
      for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t vector = static_cast<std::size_t>(k);
        double& before = before_[(vector * rows + r) * segments + s];
        sums_[((vector * static_cast<std::size_t>(groups_) + static_cast<std::size_t>(group)) * rows + r) * segments +
              s] += now[r] - before;
        before = now[r];
      }
    }
}

}  // namespace hesspect
