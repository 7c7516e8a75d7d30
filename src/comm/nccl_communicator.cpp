#include "hesspect/comm/nccl_communicator.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <exception>
#include <optional>
#include <thread>

#include "hesspect/comm/agree.h"
#include "tensor_checks.h"

namespace hesspect {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Waits between two looks at a state: not at all at first (messages take microseconds), later to spare the CPU.
void pause(Clock::time_point start) {
  const double waited = seconds_since(start);
  if (waited < 2e-4) return;
  std::this_thread::sleep_for(std::chrono::microseconds(waited < 0.1 ? 20 : 500));
}

ncclDataType_t nccl_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat ? ncclFloat32 : ncclFloat64;
}

}  // namespace

struct NcclCommunicator::Impl {
  c10::Device device;
  std::unique_ptr<Communicator> host;
  ncclComm_t comm = nullptr;
  std::optional<c10::cuda::CUDAStream> stream;
  cudaEvent_t ready = nullptr;  // the current stream's work before a message
  cudaEvent_t done = nullptr;   // the message

  Impl(c10::Device device_in, std::unique_ptr<Communicator> host_in) : device(device_in), host(std::move(host_in)) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    cudaSetDevice(device.index());  // not a CUDAGuard, which may throw
    if (ready != nullptr) cudaEventDestroy(ready);
    if (done != nullptr) cudaEventDestroy(done);
    if (comm == nullptr) return;
    // Finalising waits for the peers; a rank that unwinds must not.
    if (std::uncaught_exceptions() > 0) {
      ncclCommAbort(comm);
      return;
    }
    ncclResult_t state = ncclCommFinalize(comm);
    const auto start = Clock::now();
    while (state == ncclInProgress && seconds_since(start) < 10) {
      pause(start);
      if (ncclCommGetAsyncError(comm, &state) != ncclSuccess) break;
    }
    if (state == ncclSuccess)
      ncclCommDestroy(comm);
    else
      ncclCommAbort(comm);
  }

  [[noreturn]] void fail(const char* call, const std::string& why) {
    if (comm != nullptr) ncclCommAbort(comm);
    comm = nullptr;
    throw CommError(call, host->rank(),
                    std::string(call) + " failed on rank " + std::to_string(host->rank()) + ": " + why);
  }
  void check(ncclResult_t rc, const char* call) {
    if (rc == ncclSuccess || rc == ncclInProgress) return;
    const char* detail = comm != nullptr ? ncclGetLastError(comm) : nullptr;
    fail(call, std::string(ncclGetErrorString(rc)) +
                   (detail != nullptr && *detail != '\0' ? std::string(" (") + detail + ")" : std::string()));
  }
  void check(cudaError_t rc, const char* call) {
    if (rc != cudaSuccess) fail(call, cudaGetErrorString(rc));
  }

  /// The communicator is non-blocking: a call is accepted only when its state has left ncclInProgress.
  void settle(ncclResult_t rc, const char* call, double timeout_s) {
    const auto start = Clock::now();
    while (rc == ncclInProgress) {
      if (seconds_since(start) > timeout_s)
        fail(call, "no answer from the other ranks in " + std::to_string(static_cast<int>(timeout_s)) + " s");
      pause(start);
      ncclResult_t state = ncclInProgress;
      check(ncclCommGetAsyncError(comm, &state), "ncclCommGetAsyncError");
      rc = state;
    }
    check(rc, call);
  }

  /// Waits for the message on the host, looking at the communicator's health meanwhile.
  void wait(const char* call) {
    const auto start = Clock::now();
    for (;;) {
      const cudaError_t rc = cudaEventQuery(done);
      if (rc == cudaSuccess) return;
      if (rc != cudaErrorNotReady) check(rc, call);
      ncclResult_t state = ncclSuccess;
      check(ncclCommGetAsyncError(comm, &state), "ncclCommGetAsyncError");
      check(state, call);
      pause(start);
    }
  }

  template <class Send>
  void message(const char* call, Send&& send) {
    if (comm == nullptr) throw CommError(call, host->rank(), std::string(call) + ": the NCCL communicator was aborted");
    const c10::cuda::CUDAGuard guard(device);
    const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream(device.index());
    check(cudaEventRecord(ready, current.stream()), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream->stream(), ready, 0), "cudaStreamWaitEvent");
    settle(send(stream->stream()), call, 3600);
    check(cudaEventRecord(done, stream->stream()), "cudaEventRecord");
    check(cudaStreamWaitEvent(current.stream(), done, 0), "cudaStreamWaitEvent");
    wait(call);
  }

  void require_here(const char* call, const at::Tensor& tensor) const {
    require_message(call, tensor);
    if (tensor.device() != device)
      throw Error(ExitCode::kInternal, std::string(call) + ": the tensor is on " + tensor.device().str() +
                                           ", this rank's NCCL communicator on " + device.str());
  }
};

NcclCommunicator::NcclCommunicator(c10::Device device, std::unique_ptr<Communicator> host, const NcclOptions& options)
    : impl_(std::make_unique<Impl>(device, std::move(host))) {
  const c10::cuda::CUDAGuard guard(device);
  Communicator& ranks = *impl_->host;
  ncclUniqueId id{};
  agree(ranks, [&] {
    if (ranks.rank() == 0) impl_->check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    impl_->stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index());
    impl_->check(cudaEventCreateWithFlags(&impl_->ready, cudaEventDisableTiming), "cudaEventCreate");
    impl_->check(cudaEventCreateWithFlags(&impl_->done, cudaEventDisableTiming), "cudaEventCreate");
  });
  id = ranks.of_rank0(id);
  agree(ranks, [&] {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    impl_->settle(ncclCommInitRankConfig(&impl_->comm, ranks.size(), id, ranks.rank(), &config),
                  "ncclCommInitRankConfig", options.init_timeout_s);
  });
}

NcclCommunicator::~NcclCommunicator() = default;

int NcclCommunicator::rank() const { return impl_->host->rank(); }
int NcclCommunicator::size() const { return impl_->host->size(); }

void NcclCommunicator::all_reduce_sum(at::Tensor& tensor) {
  impl_->require_here("all_reduce_sum", tensor);
  impl_->message("ncclAllReduce", [&](cudaStream_t stream) {
    return ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), static_cast<std::size_t>(tensor.numel()),
                         nccl_type(tensor), ncclSum, impl_->comm, stream);
  });
}

void NcclCommunicator::all_gather(const at::Tensor& shard, at::Tensor& full) {
  impl_->require_here("all_gather", shard);
  require_shards("all_gather", full, shard, size());
  impl_->message("ncclAllGather", [&](cudaStream_t stream) {
    return ncclAllGather(shard.data_ptr(), full.data_ptr(), static_cast<std::size_t>(shard.numel()), nccl_type(shard),
                         impl_->comm, stream);
  });
}

void NcclCommunicator::reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) {
  impl_->require_here("reduce_scatter_sum", full);
  require_shards("reduce_scatter_sum", full, shard, size());
  impl_->message("ncclReduceScatter", [&](cudaStream_t stream) {
    return ncclReduceScatter(full.data_ptr(), shard.data_ptr(), static_cast<std::size_t>(shard.numel()),
                             nccl_type(shard), ncclSum, impl_->comm, stream);
  });
}

void NcclCommunicator::broadcast(at::Tensor& tensor, int root) {
  impl_->require_here("broadcast", tensor);
  impl_->message("ncclBroadcast", [&](cudaStream_t stream) {
    return ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), static_cast<std::size_t>(tensor.numel()),
                         nccl_type(tensor), root, impl_->comm, stream);
  });
}

void NcclCommunicator::all_reduce_sum(std::span<double> values) { impl_->host->all_reduce_sum(values); }
std::vector<std::string> NcclCommunicator::all_gather_bytes(const std::string& bytes) {
  return impl_->host->all_gather_bytes(bytes);
}
std::string NcclCommunicator::broadcast_bytes(const std::string& bytes, int root) {
  return impl_->host->broadcast_bytes(bytes, root);
}
void NcclCommunicator::barrier() { impl_->host->barrier(); }

}  // namespace hesspect
