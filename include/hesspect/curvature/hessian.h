// The Hessian, or the Gauss-Newton or a Fisher matrix, of the mean loss over all ranks' data, as a LinearOperator on
// sharded vectors.
//
// H v = (1 / N) Σ_ranks Σ_micro-batches ∇(∇ℓ_sum · v), N the global count of loss terms (1 for a sum), by the tangent
// program or by autograd. That is the loss's Hessian where the loss is a sum over rows, which row_check.h checks.
// A product: all-gather(v) → local products → reduce-scatter. Several vectors share the all-gather and each
// micro-batch's values and adjoints.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/core/curvature.h"
#include "hesspect/core/matrix_precision.h"
#include "hesspect/core/phases.h"
#include "hesspect/core/product_mode.h"
#include "hesspect/core/row_groups.h"
#include "hesspect/curvature/loss.h"
#include "hesspect/data/dataset.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/model/program.h"

namespace hesspect {

struct OperatorParts;  // of room curvature alone
struct Part;           // hesspect/curvature/parts.h
struct RowCheck;       // hesspect/curvature/row_check.h
struct OpSeconds;      // hesspect/tangent/tangent_program.h
struct WarmProducts;   // what measure_batch_cost leaves

/// Rows that belong together, as the two of a pair or the nodes of a graph do.
struct RowUnits {
  std::int64_t rows = 1;  // in a unit; micro-batches and shards are whole units
  bool together = true;   // several may go through the program at once: each stands alone among them
};

struct HessianOptions {
  LossOptions loss;
  RowUnits units;
  int output_index = 0;
  std::int64_t micro_batch = 0;  // rows; 0: chosen here, by measuring
  /// kAuto is, where nothing has been measured, kKept as far as the budget goes and then kRebuilt.
  ProductMode product = ProductMode::kAuto;
  Curvature curvature = Curvature::kHessian;   // the others are taken by the tangent program alone
  FisherUnit fisher_unit = FisherUnit::kTerm;  // of the empirical Fisher
  /// Of matrix products within products with the matrix; all else, loss and gradient too, is in full precision. The
  /// device must have units for it (hesspect/tangent/precision.h).
  MatrixPrecision precision = MatrixPrecision::kFp32;
  /// Groups of rows that apply_in_groups tells apart (core/row_groups.h): micro-batches are cut at their edges. 0:
  /// none; kAutoRowGroups: as many as cost next to nothing, or none.
  std::int64_t row_groups = 0;
  /// Where parameters are sharded: where the program is cut into segments, as Cuts of the tangent program; none: chosen
  /// for the least memory.
  std::optional<std::vector<std::size_t>> cuts;
  std::int64_t joint_products = 1;  // that are taken at once, at most, which the choice of cuts allows for
  bool fetch_ahead = false;         // the next segment while one is worked on
  std::int64_t span = 1;            // segments between whose cuts what crosses is made again, not held; 1: it is held
  std::int64_t passes = 1;          // through the segments, each with a part of a rank's micro-batches
  bool crossing_on_host = false;    // what crosses the cuts is in host memory while no segment reads it
  bool on_host = false;             // a rank's shares, of parameters and vectors, are in host memory beside its GPU
  bool cuda_graphs = true;          // replay kept micro-batches' products on a GPU where that is faster
  /// Bytes per rank that may be kept between products; 0: rebuild all; -1: half of the free memory, of the device on
  /// CUDA and of this rank's share of the node on the CPU. Where memory runs out before, fewer are kept.
  std::int64_t graph_budget_bytes = -1;
  /// Ranks that share this node's memory.
  int ranks_on_node = 1;
  /// Try the double backward of every op that is left to autograd before the run (up to a product's cost on two rows).
  /// False where measure_batch_cost has done so: with micro_batch given too, nothing is measured twice.
  bool check_double_backward = true;
  /// For measure_batch_cost: the rows that it is given are all that a rank has.
  bool whole_data = false;
  /// What measure_batch_cost has left of these rows by these very options, all in one micro-batch: taken over. Of one
  /// rank alone.
  std::shared_ptr<WarmProducts> warm;
  Phases* phases = nullptr;  // the run's clock, where it has one; borrowed
};

/// What products cost, for the result's diagnostics. A call for K vectors on D ranks counts as K products.
struct HessianStats {
  std::int64_t products = 0;
  double product_s = 0;            // wall time inside apply and apply_block
  double communication_s = 0;      // part of it in collectives on vectors
  std::int64_t collectives = 0;    // 3 a call, none with D = 1: all-gather, `agree`, reduce-scatter
  std::int64_t message_bytes = 0;  // what this rank must send in them, K · 2 (D - 1) · chunk · element a call
  double gradient_s = 0;           // time of one local gradient, measured at construction
  std::int64_t micro_batch = 0;
  std::int64_t micro_batches = 0;  // on this rank
  std::int64_t kept_graphs = 0;    // how many of these are kept between products now
  std::int64_t graph_bytes = 0;    // that keeping one micro-batch takes; 0 where not measured
  std::int64_t cuda_graphs = 0;    // micro-batches whose products are replayed as CUDA graphs now
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
  /// Takes room for 2 K vectors of shard().padded() entries at the first call with K vectors, and keeps it.
  void apply_block(std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local) override;

  /// y_i := H_pp x_i, H_pp the diagonal block of a part (PartOperator has it as an operator of its own). Vectors are
  /// the part's, cut over the ranks as shard_of(part) says. Tangents flow only where the part's
  /// parameters lead, and what is kept between products serves these too. No part of stats(). Collective.
  void apply_part(const Part& part, std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local);
  /// How a part's vectors are cut: in equal chunks, or, where parameters are sharded, each entry with the rank that has
  /// it of the whole.
  Shard shard_of(const Part& part) const;

  /// The groups of rows that products are told apart by; none where none were asked for, or in one micro-batch.
  const RowGroups& row_groups() const;
  /// As apply_block, and of every product H x_k = Σ_g H_g x_k what each group of rows has of it: x_k · H_g x_k and
  /// o · H_g x_k for others o, at no product of its own. Where there are no groups: empty. Collective.
  /// @param others    shards [chunk] of further vectors; held whole meanwhile
  /// @param segments  offsets in a whole vector between which the inner products are taken; the last is n
  /// @return [K][groups][1 + others][segments], of x_k first; over all ranks, divided as products are
  std::vector<double> apply_in_groups(std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local,
                                      std::span<const at::Tensor> others, const std::vector<std::int64_t>& segments);

  /// Takes products in another precision from here on: what is kept is made again. Collective.
  void set_precision(MatrixPrecision precision);
  MatrixPrecision precision() const;
  /// What the precision that was asked for changes: measured at construction, by two products in each precision that
  /// count as none. The same on all ranks.
  const PrecisionEffect& precision_effect() const;

  /// Finds the row and the node of the program that made a product with x not finite. Collective.
  /// @throws InputError that names them, on every rank; returns where each micro-batch's product is finite by itself
  void explain_non_finite(const at::Tensor& x_local);

  /// The mean loss over all data, or the sum where that is the reduction. Collective at construction; a stored value
  /// here.
  double loss() const;
  /// Terms of the loss, or their weight: what a mean divides by.
  double count() const;
  /// The gradient of the mean loss, this rank's shard [chunk].
  const at::Tensor& gradient() const;
  const HessianStats& stats() const;
  /// Where this rank's sweeps took their time, by op, longest first; nothing of products by autograd.
  std::vector<OpSeconds> op_seconds() const;
  /// Whether parameters are sharded: the program was left in its file.
  bool is_sharded() const;
  /// Whether rows stand alone, where parameters are sharded (hesspect/curvature/row_check.h). Collective.
  RowCheck check_rows(const ArrayFile& file, const DatasetSpec& spec);
  /// What LossSurface works with.
  OperatorParts parts();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
