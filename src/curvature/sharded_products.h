// Gradients and products of a model whose parameters are sharded: a segment of the program at a time is whole.
//
//   for s = 0 … S − 2:  gather parameters and v of segment s;  every micro-batch forwards
//   for s = S − 1 … 0:  the same again;  every micro-batch backwards;  the sums of segment s go to the ranks that own
//   them
//
// Each of these is a *visit*. Fetching ahead, the messages of the next visit, and the sums of the one before, are under
// way while a visit works. Where what crosses the cuts is too much to hold, segments are taken in spans: what crosses a
// cut inside a span goes when the span has been passed, and is made again, by further visits, before the way back. Or
// the micro-batches are divided among several passes through the segments.
//
// Parameters that are read in the same segments make a *set* (most sets are read in one; a tied embedding and head in
// two), which is gathered as one message. Those that are held fixed (--params) make sets of their own, which no vector
// has. Parameters are held and sent in the type in which the file has them, and
// widened when they have come, which is exact. They may lie in host memory beside a GPU, from which a segment's go over
// on a stream of their own. Vectors are cut as the sets are (core/vector_cut.h), so that no rank
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
#include "hesspect/core/segment_visits.h"
#include "hesspect/core/vector_cut.h"
#include "hesspect/curvature/row_check.h"
#include "hesspect/krylov/shard.h"
#include "hesspect/tangent/segments.h"
#include "local_loss.h"
#include "side_stream.h"

namespace hesspect {

/// What the messages of products were so far.
struct ShardedTraffic {
  std::int64_t messages = 0;  // collectives on tensors
  std::int64_t bytes = 0;     // that this rank has sent in them, (D - 1) / D of each whole message
  double seconds = 0;         // that nothing else was done in
};

struct ShardedOptions {
  std::optional<Cuts> cuts;  // none: chosen, for products of `tangents` vectors at once
  std::int64_t tangents = 1;
  bool fetch_ahead = false;       // twice the memory for whole segments
  std::size_t span = 1;           // segments in a span; 1: what crosses a cut stays
  std::size_t passes = 1;         // through the segments, each with a part of the micro-batches
  bool crossing_on_host = false;  // what crosses the cuts, too
  bool on_host = false;           // shares of parameters and vectors are in host memory, whatever the device
};

/// What a product says of each group of rows (HessianOperator::apply_in_groups): what x_k and other vectors make with
/// each group's part of H x_k, of this rank's rows.
struct GroupsOfProduct {
  std::int64_t groups = 0;
  std::span<const std::int64_t> group_of;     // of each micro-batch
  std::span<const at::Tensor> others;         // shards [chunk]
  const std::vector<std::int64_t>& segments;  // offsets in a whole vector, at edges of parameters; the last is n
  std::vector<double> sums = {};              // [K][groups][1 + others][segments], of x_k first
};

class ShardedProducts {
 public:
  /// Cuts the program, and reads this rank's share of the parameters. Collective. Borrows both.
  /// @param batches  this rank's micro-batches, which must outlive this; any number, also none
  /// @throws InputError (agreed) for a parameter that is not finite, a program that can't be cut by its shapes alone
  ShardedProducts(LocalLoss& local, const std::vector<MicroBatch>& batches, Communicator& comm,
                  const ShardedOptions& options);
  ~ShardedProducts();

  const Shard& shard() const { return shard_; }
  /// Of the vectors that it takes and gives.
  at::TensorOptions vector_options() const;
  std::size_t segments() const { return segments_->size(); }
  const ShardedTraffic& traffic() const { return traffic_; }

  /// gradient [chunk] := this rank's shard of the gradient of the sum over all ranks' rows. Collective.
  /// @return the sum of the loss's terms of each of this rank's micro-batches
  const std::vector<double>& gradient(at::Tensor& gradient);
  /// y_k [chunk] := this rank's shard of H x_k, of the sum over all ranks' rows. Collective.
  /// @param chosen  parameters of the layout: outside of them every x_k is zero, and of H x_k nothing is wanted; empty:
  ///                all. What leads to none of them is not gone back through, and none of its vectors are gathered
  /// @param groups  gets its sums; nullptr: rows are not told apart
  void products(std::span<const at::Tensor> x, std::span<at::Tensor> y, const std::vector<bool>& chosen = {},
                GroupsOfProduct* groups = nullptr);
  /// The output that the loss takes, of each micro-batch, as the program has it. Collective.
  std::vector<at::Tensor> outputs();
  /// Whether rows stand alone (hesspect/curvature/row_check.h), all ranks running the program on the same rows.
  /// Collective.
  RowCheck check_rows(const ArrayFile& file, const DatasetSpec& spec, const LossOptions& loss, int output_index);

 private:
  struct Set {
    std::vector<std::size_t> parameters;  // among those that are brought
    VectorCut::Set cut;                   // how it is cut, and where in vectors its chunk begins
    bool is_fixed = false;                // no vector has it
    std::vector<std::int64_t> offsets;    // of each in the set
    at::ScalarType stored = at::kFloat;   // how it is held
    at::Tensor mine;                      // [chunk], of that type
  };
  /// Memory for the whole sets of the largest segment.
  struct Room {
    at::Tensor stored, widened;  // bytes: of parameters as they come, and in the run's type where that is another
    at::Tensor v, sums, others;  // entries
    /// Of shares in host memory: page-locked, and on the device. Bytes.
    at::Tensor locked, brought;
  };
  /// The whole sets of a visit's segment, in a room, whose messages may be under way.
  struct Fetch {
    SegmentVisit visit;
    std::vector<std::unique_ptr<Pending>> messages;
    /// Of each set: [D · chunk], the same, [K, D · chunk] twice and [others, D · chunk], where they are wanted.
    std::vector<at::Tensor> stored, values, v, sums, others;
  };
  /// The sums of a visit that has been, on their way to the ranks that own them.
  struct Sums {
    struct One {
      std::unique_ptr<Pending> message;
      at::Tensor whole, part, mine;  // [D · chunk], [chunk] of it, and the entries that it is added to
    };
    std::vector<One> all;
  };

  Cuts choose_cuts(std::int64_t tangents);
  void find_sets(Cuts cuts);
  void read_parameters();
  void make_room(std::int64_t vectors, std::int64_t others);
  class Changes;
  /// The output that the loss takes, of these inputs, and those that do not depend on parameters: the first rank's on
  /// all; the others undefined. @param free  which do not
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, std::size_t output,
                              const std::vector<std::size_t>& free);
  void sweep(std::span<Sweeps> sweeps, std::span<const at::Tensor> x, std::span<at::Tensor> y, bool backwards);
  void pass(std::span<Sweeps> sweeps, std::span<const at::Tensor> x, std::span<at::Tensor> y, bool backwards);
  Fetch begin_fetch(const SegmentVisit& visit, std::span<const at::Tensor> x, Room& room);
  SegmentTensors arrived(Fetch& fetch);
  void work(std::span<Sweeps> sweeps, const Fetch& fetch, const SegmentTensors& tensors);
  void end_group(std::int64_t group, const Fetch& fetch, std::vector<double>& before);
  Sums begin_sums(const Fetch& fetch, std::span<at::Tensor> y);
  void finish(Sums& sums);
  void count(std::int64_t sent_bytes);
  bool is_in_vectors(std::size_t parameter) const;
  bool is_chosen(std::size_t parameter) const {
    return is_in_vectors(parameter) && (chosen_.empty() || chosen_[parameter]);
  }
  bool is_chosen(const Set& set) const;
  std::vector<SegmentVisit> visits(bool backwards) const;
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
  const bool crossing_on_host_, on_host_;
  SideStream side_;
  std::vector<bool> chosen_;  // of the product that is taken; empty: all
  const bool fetch_ahead_;
  const std::size_t span_, passes_;
  std::int64_t vectors_ = -1;       // K that there is room for,
  std::int64_t others_ = 0;         // further ones,
  std::int64_t vectors_taken_ = 0;  // and of the sweep that is made
  std::vector<Room> rooms_;         // one, or two in turn
  at::Tensor parts_;                // entries, of a segment's sums that come back
  std::function<void(const at::Tensor& values, std::size_t parameter)> change_;  // of what is gathered; none: as it is
  GroupsOfProduct* groups_ = nullptr;                                            // of the product that is taken
  std::exception_ptr failure_;
  std::vector<double> terms_;  // of each micro-batch, the sum of the loss's terms
};

}  // namespace hesspect
