// What of a HessianOperator others in this room work with.
#pragma once

#include <vector>

#include "local_loss.h"

namespace hesspect {

struct OperatorParts {
  LocalLoss& local;
  const std::vector<MicroBatch>& batches;
  double divisor;  // of sums over all rows
};

}  // namespace hesspect
