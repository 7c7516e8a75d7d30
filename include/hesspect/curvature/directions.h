// Directions through the parameters that the loss is looked at along.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "hesspect/curvature/hessian.h"
#include "hesspect/model/program.h"

namespace hesspect {

/// A random direction, filter-normalised: Gaussian entries, in each filter (a slice of a parameter along its first
/// dimension: an output channel, a unit, a row of a table) scaled to the filter's own norm; 0 in parameters of fewer
/// than two dimensions (biases, norms). A model whose filters are scaled without any effect, as before a batch norm,
/// then has the same landscape. Collective over op.comm(), where each rank makes the whole vector.
/// @param seed, number  of the entries, which depend on nothing else (core/random_probe.h)
/// @return this rank's shard [chunk]
/// Source: Li, Xu, Taylor, Studer & Goldstein, Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, §4
at::Tensor filter_normalised(const HessianOperator& op, Program& program, std::uint64_t seed, std::uint64_t number);

/// This rank's shard [chunk] of a whole vector [n], of the operator's type and device.
at::Tensor shard_of(const HessianOperator& op, const at::Tensor& whole);

}  // namespace hesspect
