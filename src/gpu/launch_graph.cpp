// CUDA graphs by the runtime's own calls. at::cuda::CUDAGraph would leave the allocator in the middle of a capture
// where an op breaks it, and such ops are to be expected here.
#include "launch_graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace hesspect {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

void require_success(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // or the next call that asks would be blamed
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(result));
}

/// Newer versions of the allocator want to be told that a stream records; while it does, they ask for no event.
template <class Allocator>
void tell_begin(Allocator& all, c10::DeviceIndex device) {
  if constexpr (requires { all.markCaptureBegin(device); }) all.markCaptureBegin(device);
}
template <class Allocator>
void tell_end(Allocator& all, c10::DeviceIndex device) {
  if constexpr (requires { all.markCaptureEnd(device); }) all.markCaptureEnd(device);
}

/// Memory that the allocator keeps for graphs alone, as long as this lives.
class Pool {
 public:
  explicit Pool(c10::DeviceIndex device) : device_(device), id_(at::cuda::graph_pool_handle()) {}
  ~Pool() {
    for (; uses_ > 0; --uses_) allocator::releasePool(device_, id_);
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// What is allocated meanwhile on streams that the filter takes comes from the pool.
  class Allocating {
   public:
    Allocating(Pool& pool, std::function<bool(cudaStream_t)> filter) : pool_(pool) {
      allocator::beginAllocateToPool(pool_.device_, pool_.id_, std::move(filter));
      ++pool_.uses_;  // by the allocator's count: a pool of no use can't be used again
    }
    ~Allocating() { allocator::endAllocateToPool(pool_.device_, pool_.id_); }
    Allocating(const Allocating&) = delete;
    Allocating& operator=(const Allocating&) = delete;

   private:
    Pool& pool_;
  };

 private:
  c10::DeviceIndex device_;
  c10::MempoolId_t id_;
  int uses_ = 0;
};

/// A captured graph, not yet made ready.
struct RawGraph {
  cudaGraph_t graph = nullptr;
  RawGraph() = default;
  ~RawGraph() {
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
  RawGraph(const RawGraph&) = delete;
  RawGraph& operator=(const RawGraph&) = delete;
};

/// A stream that records; ends it at the latest when an exception passes.
class Capture {
 public:
  Capture(c10::DeviceIndex device, cudaStream_t stream) : device_(device), stream_(stream) {
    // Other threads may go on as they like: none of them knows the stream.
    require_success(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    tell_begin(*allocator::get(), device_);
  }
  ~Capture() {
    if (ended_) return;
    RawGraph broken;
    end_capture(broken);
    cudaGetLastError();
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  /// Says of any stream whether it is a part of this capture.
  std::function<bool(cudaStream_t)> filter() const {
    return [own = id_of(stream_)](cudaStream_t stream) { return own != 0 && id_of(stream) == own; };
  }

  void end(RawGraph& into) {
    require_success(end_capture(into), "cudaStreamEndCapture");
    if (into.graph == nullptr) throw std::runtime_error("nothing was recorded");
  }

 private:
  /// 0 where the stream does not record.
  static unsigned long long id_of(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    unsigned long long id = 0;
    const bool is_known = cudaStreamGetCaptureInfo(stream, &status, &id) == cudaSuccess;
    return is_known && status == cudaStreamCaptureStatusActive ? id : 0;
  }

  cudaError_t end_capture(RawGraph& into) {
    ended_ = true;
    const cudaError_t result = cudaStreamEndCapture(stream_, &into.graph);
    tell_end(*allocator::get(), device_);
    return result;
  }

  c10::DeviceIndex device_;
  cudaStream_t stream_;
  bool ended_ = false;
};

bool is_on_gpu(const cudaPitchedPtr& place) {
  cudaPointerAttributes attributes{};
  return place.ptr != nullptr && cudaPointerGetAttributes(&attributes, place.ptr) == cudaSuccess &&
         attributes.type == cudaMemoryTypeDevice;
}

/// Memory of the host that was copied from may be gone by the next replay, and no error would tell.
void require_gpu_alone(cudaGraph_t graph) {
  std::size_t count = 0;
  require_success(cudaGraphGetNodes(graph, nullptr, &count), "cudaGraphGetNodes");
  std::vector<cudaGraphNode_t> nodes(count);
  require_success(cudaGraphGetNodes(graph, nodes.data(), &count), "cudaGraphGetNodes");
  for (cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    require_success(cudaGraphNodeGetType(node, &type), "cudaGraphNodeGetType");
    if (type == cudaGraphNodeTypeKernel || type == cudaGraphNodeTypeMemset || type == cudaGraphNodeTypeEmpty) continue;
    if (type != cudaGraphNodeTypeMemcpy)
      throw std::runtime_error("an op does more than launch kernels (node of type " + std::to_string(type) + ")");
    cudaMemcpy3DParms copy{};
    require_success(cudaGraphMemcpyNodeGetParams(node, &copy), "cudaGraphMemcpyNodeGetParams");
    if (is_on_gpu(copy.srcPtr) && is_on_gpu(copy.dstPtr)) continue;
    cudaGetLastError();
    throw std::runtime_error("an op copies from or to the host");
  }
}

class CudaGraph final : public LaunchGraph {
 public:
  CudaGraph(c10::DeviceIndex device, std::shared_ptr<Pool> pool, cudaGraph_t graph)
      : device_(device), pool_(std::move(pool)) {
    require_success(cudaGraphInstantiate(&graph_, graph, 0), "cudaGraphInstantiate");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void replay() override {
    const c10::cuda::CUDAGuard guard(device_);
    require_success(cudaGraphLaunch(graph_, c10::cuda::getCurrentCUDAStream(device_).stream()), "cudaGraphLaunch");
  }

 private:
  c10::DeviceIndex device_;
  std::shared_ptr<Pool> pool_;
  cudaGraphExec_t graph_ = nullptr;
};

class CudaRecorder final : public LaunchRecorder {
 public:
  explicit CudaRecorder(c10::DeviceIndex device)
      : device_(device), stream_(c10::cuda::getStreamFromPool(false, device)) {}

  void rehearse(const std::function<void()>& work) override {
    wait();
    const c10::cuda::CUDAStreamGuard guard(stream_);
    try {
      work();
    } catch (...) {
      cudaStreamSynchronize(stream_.stream());  // what it has launched by then reads and writes its tensors
      throw;
    }
    require_success(cudaStreamSynchronize(stream_.stream()), "cudaStreamSynchronize");
  }

  std::unique_ptr<LaunchGraph> record(const std::function<void()>& work) override {
    wait();
    const std::int64_t before = reserved_bytes();
    const c10::cuda::CUDAStreamGuard guard(stream_);
    RawGraph graph;
    std::shared_ptr<Pool> pool = pool_.lock();
    if (pool == nullptr) pool_ = pool = std::make_shared<Pool>(device_);
    record_into(graph, *pool, work);
    require_gpu_alone(graph.graph);
    bytes_ = (pool.use_count() > 1 ? bytes_ : 0) + reserved_bytes() - before;
    return std::make_unique<CudaGraph>(device_, std::move(pool), graph.graph);
  }

  void wait() override {
    const c10::cuda::CUDAGuard guard(device_);  // the default stream has the same handle on all devices
    require_success(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream(device_).stream()), "cudaStreamSynchronize");
  }

  std::int64_t bytes() const override { return bytes_; }

 private:
  void record_into(RawGraph& graph, Pool& pool, const std::function<void()>& work) {
    Capture capture(device_, stream_.stream());
    const Pool::Allocating allocating(pool, capture.filter());
    work();
    capture.end(graph);
  }

  std::int64_t reserved_bytes() const {
    constexpr auto kAllPools = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return allocator::getDeviceStats(device_).reserved_bytes[kAllPools].current;
  }

  c10::DeviceIndex device_;
  c10::cuda::CUDAStream stream_;
  std::weak_ptr<Pool> pool_;  // of the graphs that there are
  std::int64_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<LaunchRecorder> make_launch_recorder(int device) {
  return std::make_unique<CudaRecorder>(device >= 0 ? static_cast<c10::DeviceIndex>(device)
                                                    : c10::cuda::current_device());
}

}  // namespace hesspect
