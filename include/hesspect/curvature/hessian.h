// The Hessian of the mean loss over all ranks' data, as a LinearOperator on sharded vectors.
//
// H v = (1 / N) Σ_ranks Σ_micro-batches ∇(∇ℓ_sum · v), N the global count of loss terms. Reverse over reverse.
// A product: all-gather(v) → local products → reduce-scatter.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/curvature/loss.h"
#include "hesspect/data/dataset.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/model/program.h"

namespace hesspect {

struct HessianOptions {
  LossOptions loss;
  int output_index = 0;
  std::int64_t micro_batch = 0;  // rows; 0: chosen here
  /// Bytes per rank that gradient graphs kept between products may take; 0: rebuild all; -1: half of this rank's share
  /// of the node's free memory (CPU; on CUDA -1 means 0).
  std::int64_t graph_budget_bytes = -1;
  /// Ranks that share this node's memory.
  int ranks_on_node = 1;
  /// Try every op's double backward before the run (one product's cost on two rows).
  bool check_double_backward = true;
};

/// What a product cost, for the result's diagnostics.
struct HessianStats {
  std::int64_t products = 0;
  double product_s = 0;        // wall time inside apply
  double communication_s = 0;  // part of it in collectives
  double gradient_s = 0;       // time of one local gradient, measured at construction
  std::int64_t micro_batch = 0;
  std::int64_t micro_batches = 0;  // on this rank
  std::int64_t kept_graphs = 0;    // of them
  std::int64_t graph_bytes = 0;    // of one micro-batch's gradient graph, as measured; 0 where it was not
};

class HessianOperator final : public LinearOperator {
 public:
  /// Collective. Checks data against the program (shapes, dtypes, classes), that every op differentiates twice, that
  /// loss and gradient are finite. Borrows program and comm; owns the shard.
  /// @throws InputError (agreed between ranks)
  HessianOperator(Program& program, DataShard shard, Communicator& comm, const HessianOptions& options);
  ~HessianOperator() override;

  Communicator& comm() const override;
  const Shard& shard() const override;
  at::TensorOptions options() const override;
  void apply(const at::Tensor& x_local, at::Tensor& y_local) override;

  /// The mean loss over all data. Collective at construction; a stored value here.
  double loss() const;
  /// Terms the mean is over.
  double count() const;
  /// The gradient of the mean loss, this rank's shard [chunk].
  const at::Tensor& gradient() const;
  const HessianStats& stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
