// What vector_math.h asks of its arguments.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "hesspect/krylov/vector_math.h"

namespace hesspect::detail {

/// @throws Error(kInternal) saying `what`, unless `condition`
void require(bool condition, const char* what);

/// Rows in all, checked against every vector.
std::int64_t count_rows(Rows rows, std::span<const at::Tensor> w);

}  // namespace hesspect::detail
