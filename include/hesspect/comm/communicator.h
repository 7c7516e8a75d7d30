// What ranks say to each other: a handful of verbs on flat tensors and small host values.
//
// Backends: LocalCommunicator (one rank, nothing to say), MpiCommunicator (CPU tensors) and NcclCommunicator (CUDA
// tensors, host values over MPI). Every call is collective over the communicator's ranks.
//
//   const std::unique_ptr<Communicator> comm = make_host_communicator();
//   const double norm = std::sqrt(comm->sum(norm_sq(my_shard)));
//   while (comm->of_rank0(norm_is_too_large(norm))) ...;  // no two ranks may take different branches here
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "hesspect/comm/pending.h"

namespace hesspect {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// "local", "mpi" or "nccl"
  virtual std::string backend() const = 0;

  // Tensors: contiguous, float32 or float64, on the backend's device; messages over 2 GiB are split.

  /// tensor[i] := sum over ranks. In place.
  virtual void all_reduce_sum(at::Tensor& tensor) = 0;
  /// full := the ranks' shards in rank order.
  /// @param shard [m], the same m on all ranks; @param full [m * size()]
  virtual void all_gather(const at::Tensor& shard, at::Tensor& full) = 0;
  /// shard := this rank's part of the sum over ranks of `full`. `full` may be overwritten.
  /// @param full [m * size()]; @param shard [m]
  virtual void reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) = 0;
  virtual void broadcast(at::Tensor& tensor, int root) = 0;

  // The same, begun only; results are bitwise those of the verbs above. All ranks begin such messages and the other
  // verbs in one order, and may wait for them in any.

  virtual std::unique_ptr<Pending> begin_all_gather(const at::Tensor& shard, at::Tensor& full);
  virtual std::unique_ptr<Pending> begin_reduce_scatter_sum(at::Tensor& full, at::Tensor& shard);

  // Host values.

  /// values[i] := sum over ranks, added in rank order: bitwise the same on all ranks and in every run.
  virtual void all_reduce_sum(std::span<double> values) = 0;
  /// Every rank's bytes, in rank order, on every rank.
  virtual std::vector<std::string> all_gather_bytes(const std::string& bytes) = 0;
  /// The root's bytes on every rank; what the others pass does not count.
  virtual std::string broadcast_bytes(const std::string& bytes, int root = 0) = 0;
  virtual void barrier() = 0;

  // Shorthands, in the verbs above.

  double sum(double mine) {
    all_reduce_sum(std::span<double>(&mine, 1));
    return mine;
  }
  /// [values] as all_reduce_sum gives them.
  std::vector<double> sum(std::vector<double> values) {
    all_reduce_sum(std::span<double>(values));
    return values;
  }
  /// True on every rank where it is on some.
  bool any(bool mine) { return sum(mine ? 1.0 : 0.0) > 0; }
  std::int64_t max(std::int64_t mine);
  std::int64_t min(std::int64_t mine) { return -max(-mine); }
  /// Rank 0's value, bitwise, on every rank. Decisions and numbers that come of each rank's own floating-point work
  /// need it, for machines may differ in the last bit.
  template <class Plain>
  Plain of_rank0(Plain mine) {
    static_assert(std::is_trivially_copyable_v<Plain>);
    const std::string bytes = broadcast_bytes({reinterpret_cast<const char*>(&mine), sizeof mine});
    std::memcpy(&mine, bytes.data(), sizeof mine);
    return mine;
  }
  /// The same of several; their number is rank 0's too.
  template <class Plain>
  std::vector<Plain> of_rank0(std::vector<Plain> values) {
    static_assert(std::is_trivially_copyable_v<Plain>);
    const auto* mine = reinterpret_cast<const char*>(values.data());
    const std::string bytes = broadcast_bytes({mine, values.size() * sizeof(Plain)});
    values.resize(bytes.size() / sizeof(Plain));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
};

/// The communicator of a single rank.
class LocalCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string backend() const override { return "local"; }
  void all_reduce_sum(at::Tensor& tensor) override;
  void all_gather(const at::Tensor& shard, at::Tensor& full) override;
  void reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void all_reduce_sum(std::span<double> values) override;
  std::vector<std::string> all_gather_bytes(const std::string& bytes) override;
  std::string broadcast_bytes(const std::string& bytes, int root = 0) override;
  void barrier() override;
};

}  // namespace hesspect
