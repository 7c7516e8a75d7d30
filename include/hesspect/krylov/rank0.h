// For what rests on small dense problems that every rank solves by itself: machines may differ in the last bit.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "hesspect/comm/communicator.h"

namespace hesspect {

/// Rank 0's numbers, bitwise, on every rank. Collective.
/// @param values  as many on every rank
inline std::vector<double> of_rank0(Communicator& comm, std::vector<double> values) {
  if (comm.rank() != 0) std::ranges::fill(values, 0.0);
  comm.all_reduce_sum(std::span<double>(values));
  return values;
}

}  // namespace hesspect
