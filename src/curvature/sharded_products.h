// Gradients and products of a model whose parameters are sharded: a segment of the program at a time is whole.
//
//   for s = 0 … S − 2:  gather parameters and v of segment s;  every micro-batch forwards
//   for s = S − 1 … 0:  the same again;  every micro-batch backwards;  the sums of segment s go to the ranks that own
//   them
//
// Parameters that are read in the same segments make a *set* (most sets are read in one; a tied embedding and head in
// two), which is gathered as one message. Parameters are held and sent in the type in which the file has them, and
// widened when they have come, which is exact. Vectors are cut as the sets are (core/vector_cut.h), so that no rank
// ever holds a whole one. The number of messages does not depend on the micro-batches.
//
// An error on one rank must not leave the others waiting: from there on the rank takes part in all messages, does no
// work, and all ranks learn of it at the end (`agree`).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/curvature/row_check.h"
#include "hesspect/krylov/shard.h"
#include "hesspect/tangent/segments.h"
#include "local_loss.h"

namespace hesspect {

/// What the messages of products were so far.
struct ShardedTraffic {
  std::int64_t messages = 0;  // collectives on tensors
  std::int64_t bytes = 0;     // that this rank has sent in them, (D - 1) / D of each whole message
  double seconds = 0;         // in them
};

class ShardedProducts {
 public:
  /// Cuts the program, and reads this rank's share of the parameters. Collective. Borrows both.
  /// @param batches  this rank's micro-batches, which must outlive this; any number, also none
  /// @param cuts     none: chosen, for products of so many vectors at once
  /// @throws InputError (agreed) for a parameter that is not finite, a program that can't be cut by its shapes alone
  ShardedProducts(LocalLoss& local, const std::vector<MicroBatch>& batches, Communicator& comm,
                  const std::optional<Cuts>& cuts, std::int64_t tangents = 1);
  ~ShardedProducts();

  const Shard& shard() const { return shard_; }
  std::size_t segments() const { return segments_->size(); }
  const ShardedTraffic& traffic() const { return traffic_; }

  /// gradient [chunk] := this rank's shard of the gradient of the sum over all ranks' rows. Collective.
  /// @return the sum of this rank's terms
  double gradient(at::Tensor& gradient);
  /// y_k [chunk] := this rank's shard of H x_k, of the sum over all ranks' rows. Collective.
  void products(std::span<const at::Tensor> x, std::span<at::Tensor> y);
  /// The output that the loss takes, of each micro-batch, as the program has it. Collective.
  std::vector<at::Tensor> outputs();
  /// Whether rows stand alone (hesspect/curvature/row_check.h), all ranks running the program on the same rows.
  /// Collective.
  RowCheck check_rows(const ArrayFile& file, const DatasetSpec& spec, const LossOptions& loss, int output_index);

 private:
  struct Set {
    std::vector<std::size_t> parameters;     // in the layout
    std::vector<std::int64_t> offsets;       // of each in the set
    at::ScalarType stored = at::kFloat;      // how it is held
    at::Tensor mine;                         // [chunk], of that type
    std::vector<std::size_t> segments = {};  // that read it
  };
  /// Memory for the whole sets of the largest segment.
  struct Room {
    std::int64_t vectors = -1;   // K that it is for
    at::Tensor stored, widened;  // bytes: of parameters as they come, and in the run's type where that is another
    at::Tensor v, sums;          // entries
  };
  /// A segment's sets, whole, in a room.
  struct Gathered {
    SegmentTensors tensors;
    std::vector<at::Tensor> sums;  // [K, D · chunk] of each set of the segment
  };

  Cuts choose_cuts(std::int64_t tangents);
  void find_sets(Cuts cuts);
  void read_parameters();
  void make_room(std::int64_t vectors);
  class Changes;
  /// The output of these inputs, the first rank's on all.
  at::Tensor run(const std::vector<at::Tensor>& inputs);
  void sweep(std::vector<Sweeps>& sweeps, std::span<const at::Tensor> x, std::span<at::Tensor> y, bool backwards);
  Gathered gather(std::size_t segment, std::span<const at::Tensor> x, bool backwards);
  void scatter(std::size_t segment, const Gathered& gathered, std::span<at::Tensor> y);
  void all_gather(const at::Tensor& shard, at::Tensor& full);
  template <class Work>
  void guarded(Work&& work);

  LocalLoss& local_;
  const std::vector<MicroBatch>& batches_;
  Communicator& comm_;
  std::unique_ptr<Segments> segments_;
  std::vector<Set> sets_;
  std::vector<std::vector<std::size_t>> sets_of_;  // of each segment
  Shard shard_;
  std::vector<Sweeps> sweeps_;  // of each micro-batch
  ShardedTraffic traffic_;
  Room room_;
  at::Tensor part_;  // [longest chunk of a set], of a sum that comes back
  std::function<void(const at::Tensor& values, std::size_t parameter)> change_;  // of what is gathered; none: as it is
  std::exception_ptr failure_;
};

}  // namespace hesspect
