// Adam's preconditioner D = √v̂ + ε from a file of second moments, put to the program's parameters.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "hesspect/config/run_config.h"
#include "hesspect/spectrum/sharpness.h"
#include "problem.h"

namespace hesspect {

struct AdamPreconditioner {
  at::Tensor inverse_root;  // [n] D^-1/2, double, in host memory
  AdamSharpness found;      // what the file says: all but what is measured
  std::vector<std::string> warnings;
};

/// Reads --second-moments: an optimiser's state dict (torch.save), or safetensors or HDF5 with an array of each
/// parameter's name. On one rank. Shapes are checked one by one.
/// @throws InputError: as reading, parameters that have no moment or one of another shape, moments that are negative or
///         not finite, an order of parameters that can't be told; UsageError for options that don't fit the file
AdamPreconditioner read_adam(const SharpnessConfig& config, const Problem& problem);

}  // namespace hesspect
