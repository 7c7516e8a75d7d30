// What every backend asks of the tensors it is given.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "hesspect/core/errors.h"

namespace hesspect {

/// @throws Error(kInternal) naming the call and what is wrong
inline void require_message(const char* call, const at::Tensor& tensor) {
  const auto fail = [call](const std::string& what) {
    throw Error(ExitCode::kInternal, std::string(call) + ": the tensor " + what);
  };
  if (!tensor.defined()) fail("is undefined");
  if (!tensor.is_contiguous()) fail("is not contiguous");
  if (tensor.scalar_type() != at::kFloat && tensor.scalar_type() != at::kDouble)
    fail(std::string("has dtype ") + c10::toString(tensor.scalar_type()) + "; float32 or float64 are sent");
}

/// The lengths of a shard and the whole must fit: full = size · shard.
inline void require_shards(const char* call, const at::Tensor& full, const at::Tensor& shard, int size) {
  require_message(call, full);
  require_message(call, shard);
  if (full.scalar_type() != shard.scalar_type() || full.device() != shard.device())
    throw Error(ExitCode::kInternal, std::string(call) + ": shard and full tensor differ in dtype or device");
  if (full.numel() != shard.numel() * size)
    throw Error(ExitCode::kInternal, std::string(call) + ": " + std::to_string(size) + " shards of " +
                                         std::to_string(shard.numel()) + " entries do not make " +
                                         std::to_string(full.numel()));
}

}  // namespace hesspect
