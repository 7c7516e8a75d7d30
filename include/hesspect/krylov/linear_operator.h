// A symmetric linear operator known only by its products, on vectors that are sharded over ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>

#include "hesspect/comm/communicator.h"
#include "hesspect/krylov/shard.h"

namespace hesspect {

class LinearOperator {
 public:
  virtual ~LinearOperator() = default;

  /// Ranks that hold the shards of one vector, and how it is cut.
  virtual Communicator& comm() const = 0;
  virtual const Shard& shard() const = 0;
  /// dtype (float32 or float64) and device of the vectors.
  virtual at::TensorOptions options() const = 0;

  /// y := A x. Collective over comm().
  /// @param x_local [shard().chunk], padding zero
  /// @param y_local [shard().chunk], overwritten, padding left zero; not the same storage as x_local
  virtual void apply(const at::Tensor& x_local, at::Tensor& y_local) = 0;

  /// y_i := A x_i for several vectors at once: operators that can share work and messages between them do. Collective
  /// over comm(). On the CPU the y_i are bitwise what `apply` gives for each x_i alone; on a GPU, but for rounding.
  virtual void apply_block(std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local) {
    for (std::size_t i = 0; i < x_local.size(); ++i) apply(x_local[i], y_local[i]);
  }
};

}  // namespace hesspect
