// How micro-batches are cut where groups of rows (hesspect/core/row_groups.h) are told apart, and what of a product
// each group has.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "hesspect/data/dataset.h"

namespace hesspect {

/// The rows of a micro-batch, and the group that they are in.
struct GroupedRange {
  RowRange range;
  std::int64_t group = 0;
};

/// How groups are cut: by global rows alone, whatever ranks and micro-batches there are.
struct RowGrouping {
  std::int64_t rows = 0;    // of all ranks
  std::int64_t unit = 1;    // rows that are never parted
  std::int64_t fewest = 1;  // that a micro-batch needs
  std::int64_t groups = 0;
  std::int64_t begin(std::int64_t group) const { return unit * (rows / unit * group / groups); }
  std::int64_t group_of(std::int64_t row) const;
};

/// Cuts a rank's global rows at the groups' edges and into micro-batches of at most `size` rows, as even as they come.
/// What of a group is too short for a micro-batch goes with the group before it, or after.
std::vector<GroupedRange> cut_at_groups(const RowGrouping& grouping, RowRange rows, std::int64_t size);

/// The most groups, up to 32, that leave the number of micro-batches within a tenth of what it would be; 0: not even
/// eight do.
/// @param counts  [kMostAutoGroups + 1], micro-batches of all ranks for each number of groups; the first: without any
std::int64_t choose_groups(std::span<const double> counts);
inline constexpr std::int64_t kLeastAutoGroups = 8, kMostAutoGroups = 32;

/// Inner products with the parts of K products H_g x_k, taken from the running sums Σ_{g' ≤ g} H_g' x_k: where a group
/// ends, its part is what they grew by. In double; a pass over the vectors for each group.
class GroupDots {
 public:
  /// @param others    whole vectors [n], multiplied with every product besides x_k itself
  /// @param segments  offsets [segments + 1] in a whole vector that the sums are taken between
  GroupDots(std::int64_t vectors, std::int64_t groups, std::vector<at::Tensor> others,
            std::vector<std::int64_t> segments);
  void reset();
  /// `group` ends here. @param x, sums  [K, ≥ n]
  void end(std::int64_t group, const at::Tensor& x, const at::Tensor& sums);
  /// [K][groups][1 + others][segments]: of x_k first.
  const std::vector<double>& sums() const { return sums_; }

 private:
  std::int64_t vectors_, groups_;
  std::vector<at::Tensor> others_;
  std::vector<std::int64_t> segments_;
  std::vector<double> before_;  // [K][1 + others][segments], of the running sums at the last group's end
  std::vector<double> sums_;
};

}  // namespace hesspect
