// Ranks that talk through NCCL; tensors on CUDA devices, one device per rank. Only in builds with CUDA.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "hesspect/comm/communicator.h"

namespace hesspect {

struct NcclOptions {
  double init_timeout_s = 120;  // for all ranks to meet
};

/// The NCCL backend: one communicator and one stream of its own. A call waits for work queued on the current stream,
/// and returns when its message is through; while waiting it polls ncclCommGetAsyncError, so that a peer's failure ends
/// in CommError{call, rank} (the communicator aborted) and not in a hang. Host values go through `host`.
class NcclCommunicator final : public Communicator {
 public:
  /// Collective over host.
  /// @param device  this rank's own CUDA device, which choose_device has seen to
  /// @throws CommError where NCCL can't be set up
  NcclCommunicator(c10::Device device, std::unique_ptr<Communicator> host, const NcclOptions& options = {});
  ~NcclCommunicator() override;

  int rank() const override;
  int size() const override;
  std::string backend() const override { return "nccl"; }
  void all_reduce_sum(at::Tensor& tensor) override;
  void all_gather(const at::Tensor& shard, at::Tensor& full) override;
  void reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void all_reduce_sum(std::span<double> values) override;
  std::vector<std::string> all_gather_bytes(const std::string& bytes) override;
  std::string broadcast_bytes(const std::string& bytes, int root = 0) override;
  void barrier() override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
