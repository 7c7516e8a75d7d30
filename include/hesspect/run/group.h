// The ranks that work on the same probes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/io/vectors_file.h"
#include "hesspect/spectrum/deflation.h"

namespace hesspect {

struct Group {
  int number = 0;
  std::unique_ptr<Communicator> comm;
  std::unique_ptr<HessianOperator> op;
  bool leads() const { return comm->rank() == 0; }
};

/// How the flat vector is made of parameter tensors.
struct ParameterParts {
  LayerOffsets offsets;             // [tensors + 1], the last is n
  std::vector<VectorPart> tensors;  // as files of vectors name them
};

}  // namespace hesspect
