#include "nccl_communicator.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <exception>
#include <optional>
#include <thread>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/comm/tensor_checks.h"
#include "hesspect/core/timer.h"

namespace hesspect {
namespace {

/// Waits between two looks at a state: not at all at first (messages take microseconds), later to spare the CPU.
void pause(const Timer& waiting) {
  const double waited_s = waiting.elapsed_s();
  if (waited_s < 2e-4) return;
  std::this_thread::sleep_for(std::chrono::microseconds(waited_s < 0.1 ? 20 : 500));
}

ncclDataType_t nccl_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat ? ncclFloat32 : ncclFloat64;
}

constexpr double kMeetWithin_s = 120;  // all ranks, at first

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(c10::Device device, std::unique_ptr<Communicator> host)
      : device_(device), host_(std::move(host)), mpi_(dynamic_cast<const MpiCommunicator*>(host_.get())) {}
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  ~NcclCommunicator() override {
    cudaSetDevice(device_.index());  // not a CUDAGuard, which may throw
    if (ready_ != nullptr) cudaEventDestroy(ready_);
    if (done_ != nullptr) cudaEventDestroy(done_);
    if (comm_ == nullptr) return;
    // Finalising waits for the peers; a rank that unwinds must not.
    if (std::uncaught_exceptions() > 0) {
      ncclCommAbort(comm_);
      return;
    }
    ncclResult_t state = ncclCommFinalize(comm_);
    const Timer waiting;
    while (state == ncclInProgress && waiting.elapsed_s() < 10) {
      pause(waiting);
      if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) break;
    }
    if (state == ncclSuccess)
      ncclCommDestroy(comm_);
    else
      ncclCommAbort(comm_);
  }

  /// Not in the constructor, so that what has been made is given back where the rest fails. Collective over host.
  void set_up() {
    const c10::cuda::CUDAGuard guard(device_);
    Communicator& ranks = *host_;
    ncclUniqueId id{};
    agree(ranks, [&] {
      if (ranks.rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
      stream_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device_.index());
      check(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming), "cudaEventCreate");
      check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
    });
    id = ranks.of_rank0(id);
    agree(ranks, [&] {
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      settle(ncclCommInitRankConfig(&comm_, ranks.size(), id, ranks.rank(), &config), "ncclCommInitRankConfig",
             kMeetWithin_s);
    });
  }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  std::string backend() const override { return "nccl"; }

  // What is in host memory, as shares of vectors may be, goes there.

  void all_reduce_sum(at::Tensor& tensor) override {
    if (tensor.is_cpu()) return host_->all_reduce_sum(tensor);
    require_here("all_reduce_sum", tensor);
    message("ncclAllReduce", [&](cudaStream_t stream) {
      return ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), static_cast<std::size_t>(tensor.numel()),
                           nccl_type(tensor), ncclSum, comm_, stream);
    });
  }

  void all_gather(const at::Tensor& shard, at::Tensor& full) override {
    if (shard.is_cpu()) return host_->all_gather(shard, full);
    require_here("all_gather", shard);
    require_shards("all_gather", full, shard, size());
    message("ncclAllGather", [&](cudaStream_t stream) {
      return ncclAllGather(shard.data_ptr(), full.data_ptr(), static_cast<std::size_t>(shard.numel()), nccl_type(shard),
                           comm_, stream);
    });
  }

  void reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override {
    if (full.is_cpu()) return host_->reduce_scatter_sum(full, shard);
    require_here("reduce_scatter_sum", full);
    require_shards("reduce_scatter_sum", full, shard, size());
    message("ncclReduceScatter", [&](cudaStream_t stream) {
      return ncclReduceScatter(full.data_ptr(), shard.data_ptr(), static_cast<std::size_t>(shard.numel()),
                               nccl_type(shard), ncclSum, comm_, stream);
    });
  }

  void broadcast(at::Tensor& tensor, int root) override {
    if (tensor.is_cpu()) return host_->broadcast(tensor, root);
    require_here("broadcast", tensor);
    message("ncclBroadcast", [&](cudaStream_t stream) {
      return ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), static_cast<std::size_t>(tensor.numel()),
                           nccl_type(tensor), root, comm_, stream);
    });
  }

  std::unique_ptr<Pending> begin_all_gather(const at::Tensor& shard, at::Tensor& full) override {
    require_here("begin_all_gather", shard);
    require_shards("begin_all_gather", full, shard, size());
    return begin("ncclAllGather", [&](cudaStream_t stream) {
      return ncclAllGather(shard.data_ptr(), full.data_ptr(), static_cast<std::size_t>(shard.numel()), nccl_type(shard),
                           comm_, stream);
    });
  }

  std::unique_ptr<Pending> begin_reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override {
    require_here("begin_reduce_scatter_sum", full);
    require_shards("begin_reduce_scatter_sum", full, shard, size());
    return begin("ncclReduceScatter", [&](cudaStream_t stream) {
      return ncclReduceScatter(full.data_ptr(), shard.data_ptr(), static_cast<std::size_t>(shard.numel()),
                               nccl_type(shard), ncclSum, comm_, stream);
    });
  }

  void all_reduce_sum(std::span<double> values) override { host_->all_reduce_sum(values); }
  std::vector<std::string> all_gather_bytes(const std::string& bytes) override {
    return host_->all_gather_bytes(bytes);
  }
  std::string broadcast_bytes(const std::string& bytes, int root) override {
    return host_->broadcast_bytes(bytes, root);
  }
  void barrier() override { host_->barrier(); }

 private:
  [[noreturn]] void fail(const char* call, const std::string& why) {
    if (comm_ != nullptr) ncclCommAbort(comm_);
    comm_ = nullptr;
    throw CommError(call, host_->rank(),
                    std::string(call) + " failed on rank " + std::to_string(host_->rank()) + ": " + why);
  }
  void check(ncclResult_t rc, const char* call) {
    if (rc == ncclSuccess || rc == ncclInProgress) return;
    const char* detail = comm_ != nullptr ? ncclGetLastError(comm_) : nullptr;
    fail(call, std::string(ncclGetErrorString(rc)) +
                   (detail != nullptr && *detail != '\0' ? std::string(" (") + detail + ")" : std::string()));
  }
  void check(cudaError_t rc, const char* call) {
    if (rc != cudaSuccess) fail(call, cudaGetErrorString(rc));
  }

  /// The communicator is non-blocking: a call is accepted only when its state has left ncclInProgress.
  void settle(ncclResult_t rc, const char* call, double timeout_s) {
    const Timer waiting;
    while (rc == ncclInProgress) {
      if (waiting.elapsed_s() > timeout_s)
        fail(call, "no answer from the other ranks in " + std::to_string(static_cast<int>(timeout_s)) + " s");
      pause(waiting);
      ncclResult_t state = ncclInProgress;
      check(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
      rc = state;
    }
    check(rc, call);
  }

  /// Waits for a message on the host, looking at the communicator's health meanwhile.
  void wait(const char* call, cudaEvent_t done) {
    const Timer waiting;
    for (;;) {
      const cudaError_t rc = cudaEventQuery(done);
      if (rc == cudaSuccess) return;
      if (rc != cudaErrorNotReady) check(rc, call);
      ncclResult_t state = ncclSuccess;
      check(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
      check(state, call);
      if (mpi_ != nullptr && mpi_->is_peer_failed()) fail(call, "another rank has failed");
      pause(waiting);
    }
  }

  template <class Send>
  void message(const char* call, Send&& send) {
    require_alive(call);
    if (mpi_ != nullptr) mpi_->enter();
    const c10::cuda::CUDAGuard guard(device_);
    const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream(device_.index());
    check(cudaEventRecord(ready_, current.stream()), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream_->stream(), ready_, 0), "cudaStreamWaitEvent");
    settle(send(stream_->stream()), call, 3600);
    check(cudaEventRecord(done_, stream_->stream()), "cudaEventRecord");
    check(cudaStreamWaitEvent(current.stream(), done_, 0), "cudaStreamWaitEvent");
    wait(call, done_);
  }

  /// A message on this communicator's stream, beside which the current stream goes on.
  class Message final : public Pending {
   public:
    Message(NcclCommunicator& comm, const char* call) : comm_(comm), call_(call) {
      comm_.check(cudaEventCreateWithFlags(&over_, cudaEventDisableTiming), "cudaEventCreate");
    }
    ~Message() override {
      if (over_ != nullptr) cudaEventDestroy(over_);
    }
    void wait() override {
      const c10::cuda::CUDAGuard guard(comm_.device_);
      const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream(comm_.device_.index());
      comm_.check(cudaStreamWaitEvent(current.stream(), over_, 0), "cudaStreamWaitEvent");
      comm_.wait(call_, over_);
    }
    cudaEvent_t over() const { return over_; }

   private:
    NcclCommunicator& comm_;
    const char* call_;
    cudaEvent_t over_ = nullptr;
  };

  template <class Send>
  std::unique_ptr<Pending> begin(const char* call, Send&& send) {
    require_alive(call);
    if (mpi_ != nullptr) mpi_->enter();
    const c10::cuda::CUDAGuard guard(device_);
    const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream(device_.index());
    auto message = std::make_unique<Message>(*this, call);
    check(cudaEventRecord(ready_, current.stream()), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream_->stream(), ready_, 0), "cudaStreamWaitEvent");
    settle(send(stream_->stream()), call, 3600);
    check(cudaEventRecord(message->over(), stream_->stream()), "cudaEventRecord");
    return message;
  }

  void require_alive(const char* call) const {
    if (comm_ == nullptr)
      throw CommError(call, host_->rank(), std::string(call) + ": the NCCL communicator was aborted");
  }

  void require_here(const char* call, const at::Tensor& tensor) const {
    require_message(call, tensor);
    if (tensor.device() != device_)
      throw Error(ExitCode::kInternal, std::string(call) + ": the tensor is on " + tensor.device().str() +
                                           ", this rank's NCCL communicator on " + device_.str());
  }

  c10::Device device_;
  std::unique_ptr<Communicator> host_;
  const MpiCommunicator* mpi_;  // host_, where it is one
  ncclComm_t comm_ = nullptr;
  std::optional<c10::cuda::CUDAStream> stream_;
  cudaEvent_t ready_ = nullptr;  // the current stream's work before a message
  cudaEvent_t done_ = nullptr;   // the message
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(int device, std::unique_ptr<Communicator> host) {
  auto comm = std::make_unique<NcclCommunicator>(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device)),
                                                 std::move(host));
  comm->set_up();
  return comm;
}

}  // namespace hesspect
