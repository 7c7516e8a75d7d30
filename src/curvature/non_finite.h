// Which row and which node of the program make a loss, its gradient or a product not finite.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "local_loss.h"

namespace hesspect {

/// Looks through this process's micro-batches, halves the first one that is not finite down to a row where the program
/// allows, and runs that node by node. For error paths: costs a few products.
/// @param ranges  of rows of this process, in order
/// @param v       of the product, a tensor for each parameter; empty: loss and gradient alone
/// @return "in row 17, node 'norm' (…) has a second derivative that is not finite: …"; "" where all is finite
std::string first_non_finite(LocalLoss& local, const std::vector<RowRange>& ranges, const std::vector<at::Tensor>& v);

}  // namespace hesspect
