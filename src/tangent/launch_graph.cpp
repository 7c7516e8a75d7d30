// CUDA graphs by the runtime's own calls. at::cuda::CUDAGraph would leave the allocator in the middle of a capture
// where an op breaks it, and such ops are to be expected here.
#include "hesspect/tangent/launch_graph.h"

#ifdef HESSPECT_HAVE_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <vector>
#endif

namespace hesspect {

#ifdef HESSPECT_HAVE_CUDA
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

void require_success(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // or the next call that asks would be blamed
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(result));
}

/// One use of a memory pool: the allocator keeps its blocks for as long as there is any.
class PoolUse {
 public:
  /// From here to end_allocating() the pool gives what is allocated on streams that the filter takes.
  PoolUse(c10::DeviceIndex device, c10::MempoolId_t pool, std::function<bool(cudaStream_t)> filter)
      : device_(device), pool_(pool) {
    allocator::beginAllocateToPool(device_, pool_, std::move(filter));
  }
  ~PoolUse() {
    end_allocating();
    allocator::releasePool(device_, pool_);
  }
  PoolUse(const PoolUse&) = delete;
  PoolUse& operator=(const PoolUse&) = delete;

  void end_allocating() {
    if (allocates_) allocator::endAllocateToPool(device_, pool_);
    allocates_ = false;
  }

 private:
  c10::DeviceIndex device_;
  c10::MempoolId_t pool_;
  bool allocates_ = true;
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
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    // Other threads may go on as they like: none of them knows the stream.
    require_success(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  }
  ~Capture() {
    if (ended_) return;
    RawGraph broken;
    cudaStreamEndCapture(stream_, &broken.graph);
    cudaGetLastError();
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  /// Says of any stream whether it is a part of this capture.
  std::function<bool(cudaStream_t)> filter() const {
    return [own = id_of(stream_)](cudaStream_t stream) { return own != 0 && id_of(stream) == own; };
  }

  void end(RawGraph& into) {
    ended_ = true;
    require_success(cudaStreamEndCapture(stream_, &into.graph), "cudaStreamEndCapture");
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
    if (!is_on_gpu(copy.srcPtr) || !is_on_gpu(copy.dstPtr))
      throw std::runtime_error("an op copies from or to the host");
  }
}

class CudaGraph final : public LaunchGraph {
 public:
  CudaGraph(c10::DeviceIndex device, std::unique_ptr<PoolUse> pool, cudaGraph_t graph)
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
  std::unique_ptr<PoolUse> pool_;
  cudaGraphExec_t graph_ = nullptr;
};

class CudaRecorder final : public LaunchRecorder {
 public:
  explicit CudaRecorder(c10::DeviceIndex device)
      : device_(device), stream_(c10::cuda::getStreamFromPool(false, device)), pool_(at::cuda::graph_pool_handle()) {}

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
    std::unique_ptr<PoolUse> pool;
    {
      Capture capture(stream_.stream());
      pool = std::make_unique<PoolUse>(device_, pool_, capture.filter());
      work();
      capture.end(graph);
    }
    pool->end_allocating();
    require_gpu_alone(graph.graph);
    bytes_ += reserved_bytes() - before;
    return std::make_unique<CudaGraph>(device_, std::move(pool), graph.graph);
  }

  void wait() override {
    require_success(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream(device_).stream()), "cudaStreamSynchronize");
  }

  std::int64_t bytes() const override { return bytes_; }

 private:
  std::int64_t reserved_bytes() const {
    constexpr auto kAllPools = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return allocator::getDeviceStats(device_).reserved_bytes[kAllPools].current;
  }

  c10::DeviceIndex device_;
  c10::cuda::CUDAStream stream_;
  c10::MempoolId_t pool_;
  std::int64_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<LaunchRecorder> launch_recorder(c10::Device device) {
  if (!device.is_cuda()) return nullptr;
  return std::make_unique<CudaRecorder>(device.has_index() ? device.index() : c10::cuda::current_device());
}

#else

std::unique_ptr<LaunchRecorder> launch_recorder(c10::Device) { return nullptr; }

#endif

}  // namespace hesspect
