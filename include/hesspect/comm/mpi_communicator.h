// Ranks that talk through MPI; tensors on the CPU.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <list>
#include <memory>

#include "hesspect/comm/communicator.h"

namespace hesspect {

class MessageGuard;

/// The MPI backend. Needs a live MpiSession. Tensors must be on the CPU (MPI builds that take device pointers are not
/// relied on: CUDA tensors go through NcclCommunicator). Failing calls throw CommError{call, rank}.
class MpiCommunicator final : public Communicator {
 public:
  /// No message holds more than 2 GiB minus a margin: counts in MPI are ints, and so are some of its inner sums of
  /// bytes.
  static constexpr std::int64_t kMaxMessageBytes = std::int64_t{1} << 30;

  /// All ranks of the program, under a context of their own. Collective.
  static std::unique_ptr<MpiCommunicator> world(std::int64_t max_message_bytes = kMaxMessageBytes);
  /// The same of a contained run (containment.h): every message is guarded, also of those that are split off.
  static std::unique_ptr<MpiCommunicator> world(std::shared_ptr<MessageGuard> guard);
  /// The ranks that pass the same colour, in order of key, then of rank here. Collective.
  std::unique_ptr<MpiCommunicator> split(int color, int key) const;
  ~MpiCommunicator() override;
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "mpi"; }
  void all_reduce_sum(at::Tensor& tensor) override;
  void all_gather(const at::Tensor& shard, at::Tensor& full) override;
  void reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override;
  void broadcast(at::Tensor& tensor, int root) override;
  std::unique_ptr<Pending> begin_all_gather(const at::Tensor& shard, at::Tensor& full) override;
  std::unique_ptr<Pending> begin_reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override;
  void all_reduce_sum(std::span<double> values) override;
  std::vector<std::string> all_gather_bytes(const std::string& bytes) override;
  std::string broadcast_bytes(const std::string& bytes, int root = 0) override;
  void barrier() override;

  /// Before a message that another backend sends between these ranks. @throws PeerFailed in a contained run
  void enter() const;
  /// Whether a rank of the contained run has failed.
  bool is_peer_failed() const;
  MPI_Comm mpi_comm() const { return comm_; }

 private:
  class Gathering;
  class Summing;

  MpiCommunicator(MPI_Comm comm, std::int64_t max_message_bytes, std::shared_ptr<MessageGuard> guard);
  void check(int rc, const char* call) const;
  void move_sums();
  std::int64_t piece(std::int64_t element_bytes) const;
  template <class Send>
  void in_pieces(std::int64_t count, std::int64_t element_bytes, const char* call, Send&& send) const;

  MPI_Comm comm_;
  std::int64_t max_message_bytes_;
  int rank_ = 0, size_ = 1;
  std::list<Summing*> summing_;          // begun and not over, in order: the first one alone is under way
  at::Tensor received_;                  // pieces of it
  std::shared_ptr<MessageGuard> guard_;  // none: nothing goes on after a failure
  std::size_t guard_number_ = 0;
};

}  // namespace hesspect
