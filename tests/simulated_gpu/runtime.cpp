// CUDA's runtime, as far as libc10_cuda.so, libhesspect_gpu.so and the simulated libtorch_cuda.so ask for it.
// SIMULATED_GPUS says how many devices there are (1).
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "kernels.h"
#include "memory.h"
#include "objects.h"
#include "streams.h"

namespace simulated_gpu {
namespace {

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

int count() {
  const char* const asked = std::getenv("SIMULATED_GPUS");
  return std::clamp(asked == nullptr ? 1 : std::atoi(asked), 0, kMostDevices);
}

cudaError_t answer(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaMemcpyKind kind_of(const void* to, const void* from, cudaMemcpyKind said) {
  if (said != cudaMemcpyDefault) return said;
  if (is_of_device(to)) return is_of_device(from) ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
  return is_of_device(from) ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
}

Work copy(void* to, const void* from, std::size_t bytes) {
  return {.name = "a copy",
          .accesses = {{from, bytes, false}, {to, bytes, true}},
          .run = [=] { std::memcpy(host_alias(to), host_alias(from), bytes); },
          .from = from,
          .to = to};
}

cudaError_t copy_on(cudaStream_t stream, void* to, const void* from, std::size_t bytes, cudaMemcpyKind said) {
  const cudaMemcpyKind kind = kind_of(to, from, said);
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  if (from_device != is_of_device(from) || to_device != is_of_device(to)) return cudaErrorInvalidMemcpyDirection;
  const std::lock_guard lock(simulation());
  if (from_device && to_device) {
    submit(stream, copy(to, from, bytes));
  } else if (is_page_locked(from_device ? to : from)) {
    if (from_device && !is_recording(stream)) std::memset(to, 0xff, bytes);  // for whoever reads it too early
    submit_for_later(stream, copy(to, from, bytes));
  } else {
    submit(stream, copy(to, from, bytes));  // of memory that is not page-locked the runtime makes a copy first
    if (from_device) return wait_for(stream);
  }
  return cudaSuccess;
}

}  // namespace

int current_device() { return device_of_thread; }

}  // namespace simulated_gpu

using namespace simulated_gpu;

namespace {
const std::pair<cudaError_t, const char*> kErrors[] = {
    {cudaSuccess, "no error"},
    {cudaErrorInvalidValue, "invalid argument"},
    {cudaErrorMemoryAllocation, "out of memory"},
    {cudaErrorInvalidDevice, "invalid device ordinal"},
    {cudaErrorNoDevice, "no CUDA-capable device is detected"},
    {cudaErrorNotReady, "device not ready"},
    {cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"},
    {cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"},
    {cudaErrorSymbolNotFound, "named symbol not found"},
};
}  // namespace

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  for (const auto& [each, text] : kErrors)
    if (each == error) return text;
  return "an error of the simulated GPU";
}
const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

// Devices.

cudaError_t cudaGetDeviceCount(int* result) {
  *result = count();
  return answer(*result == 0 ? cudaErrorNoDevice : cudaSuccess);
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = device_of_thread, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= count()) return answer(cudaErrorInvalidDevice);
  device_of_thread = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= count()) return answer(cudaErrorInvalidDevice);
  *properties = {};
  std::strncpy(properties->name, "simulated GPU", sizeof properties->name - 1);
  properties->major = 9;
  properties->minor = 0;
  properties->warpSize = 32;
  properties->multiProcessorCount = 132;
  properties->totalGlobalMem = kDeviceBytes;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->uuid.bytes[0] = 0x51;
  properties->uuid.bytes[15] = static_cast<char>(1 + device);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= count()) return answer(cudaErrorInvalidDevice);
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
  std::strncpy(id, ("0000:0" + std::to_string(device) + ":00.0").c_str(), static_cast<std::size_t>(length));
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return answer(cudaErrorInvalidDevice); }
cudaError_t cudaDeviceSynchronize() {
  const std::lock_guard lock(simulation());
  wait_for_all(device_of_thread);
  return cudaSuccess;
}

// Memory.

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  const std::lock_guard lock(simulation());
  *address = allocate(device_of_thread, bytes);
  return answer(*address == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFree(void* address) {
  const std::lock_guard lock(simulation());
  if (address == nullptr) return cudaSuccess;
  wait_for_all(device_of(address));
  return answer(release(address) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaHostAlloc(void** address, std::size_t bytes, unsigned) {
  const std::lock_guard lock(simulation());
  *address = allocate_on_host(bytes);
  return answer(*address == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFreeHost(void* address) {
  const std::lock_guard lock(simulation());
  catch_up_all();
  return answer(address == nullptr || release_on_host(address) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const std::lock_guard lock(simulation());
  *free = free_bytes(device_of_thread);
  *total = kDeviceBytes;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  const std::lock_guard lock(simulation());
  *attributes = {};
  attributes->type = is_of_device(address)     ? cudaMemoryTypeDevice
                     : is_page_locked(address) ? cudaMemoryTypeHost
                                               : cudaMemoryTypeUnregistered;
  attributes->device = is_of_device(address) ? device_of(address) : 0;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return answer(copy_on(stream, to, from, bytes, kind));
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t error = copy_on(nullptr, to, from, bytes, kind);
  return answer(error == cudaSuccess ? wait_for(nullptr) : error);
}

// Streams and events.

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  const std::lock_guard lock(simulation());
  return *stream = &make_stream(device_of_thread), cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return answer(wait_for(stream)); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return answer(wait_for(stream)); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard lock(simulation());
  return answer(make_wait(stream_of(stream), *event));
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(simulation());
  record_event(*event, stream_of(stream));
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(simulation());
  const bool was_late = has_put_off(event->clock);
  wait_for_clock(event->clock);
  return was_late ? answer(cudaErrorNotReady) : cudaSuccess;  // once, so that callers must ask again
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(simulation());
  wait_for_clock(event->clock);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  return *milliseconds = 0, cudaSuccess;
}

// Graphs.

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(capture_mode, *mode);
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  const std::lock_guard lock(simulation());
  static std::uint64_t captures = 0;
  CUstream_st& stream = stream_of(handle);
  if (reinterpret_cast<std::uintptr_t>(handle) <= 2 || stream.recording != nullptr)
    return answer(cudaErrorStreamCaptureUnsupported);
  stream.recording = std::make_unique<Recording>();
  stream.recording_id = ++captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const std::lock_guard lock(simulation());
  CUstream_st& stream = stream_of(handle);
  *graph = nullptr;
  if (stream.recording == nullptr) return answer(cudaErrorInvalidValue);
  const std::unique_ptr<Recording> recording = std::move(stream.recording);
  end_recording(*recording);
  if (recording->is_broken) return answer(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st;
  for (Work& work : recording->works) (*graph)->nodes.push_back(std::make_unique<CUgraphNode_st>(std::move(work)));
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = is_recording(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t*, const cudaGraphNode_t**, const cudaGraphEdgeData**, std::size_t*) {
  if (id != nullptr) *id = stream_of(stream).recording_id;
  return cudaStreamIsCapturing(stream, status);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* number) {
  if (nodes != nullptr)
    for (std::size_t n = 0; n < *number && n < graph->nodes.size(); ++n) nodes[n] = graph->nodes[n].get();
  *number = graph->nodes.size();
  return cudaSuccess;
}
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  *type = node->work.to == nullptr ? cudaGraphNodeTypeKernel : cudaGraphNodeTypeMemcpy;
  return cudaSuccess;
}
cudaError_t cudaGraphMemcpyNodeGetParams(cudaGraphNode_t node, cudaMemcpy3DParms* parameters) {
  *parameters = {};
  parameters->srcPtr.ptr = const_cast<void*>(node->work.from);
  parameters->dstPtr.ptr = node->work.to;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  *ready = new CUgraphExec_st;
  for (const auto& node : graph->nodes) (*ready)->works.push_back(node->work);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  for (const Work& work : graph->works) submit(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

// Kernels: of an image that NVRTC has compiled only the names count.

cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void* code, cudaJitOption*, void**, unsigned,
                                cudaLibraryOption*, void**, unsigned) {
  if (std::memcmp(code,
                  "\x7f"
                  "ELF",
                  4) != 0)
    return answer(cudaErrorInvalidValue);
  static int loaded;
  return *library = reinterpret_cast<cudaLibrary_t>(&loaded), cudaSuccess;
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t, const char* name) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<Kernel*>(find_kernel(name)));
  return answer(*kernel == nullptr ? cudaErrorSymbolNotFound : cudaSuccess);
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** parameters, std::size_t,
                             cudaStream_t stream) {
  const Kernel& kernel = *static_cast<const Kernel*>(function);
  std::string arguments(static_cast<const char*>(parameters[0]), kernel.argument_bytes);
  const std::int64_t units = *static_cast<const std::int64_t*>(parameters[1]);
  Work work{.name = kernel.name, .accesses = {}, .run = {}, .runs_while_recorded = false};
  for (std::size_t at = 0; at + sizeof(void*) <= arguments.size(); at += sizeof(void*)) {
    void* address = nullptr;
    std::memcpy(&address, arguments.data() + at, sizeof address);
    // What stands between two members may look like an address; if it is one, its translation does no harm there.
    if (!is_of_device(address) || !is_allocated(address, 1)) continue;
    work.accesses.push_back({address, 1, false});  // how far it reaches, and whether it is written to, isn't known here
    address = host_alias(address);
    std::memcpy(arguments.data() + at, &address, sizeof address);
  }
  work.run = [arguments, units, &kernel, blocks = grid.x, threads = block.x] {
    run_grid(kernel, arguments.data(), units, blocks, threads);
  };
  submit(stream, std::move(work));
  return cudaSuccess;
}

// Of the driver libc10_cuda.so uses one function here; it looks for more.

static int primary_context_state(int, unsigned* flags, int* active) { return *flags = 0, *active = 1, 0; }
static int no_driver_function() { return 801; }  // CUDA_ERROR_NOT_SUPPORTED

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *function = std::string(name) == "cuDevicePrimaryCtxGetState" ? reinterpret_cast<void*>(&primary_context_state)
                                                                : reinterpret_cast<void*>(&no_driver_function);
  if (result != nullptr) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

// What libc10_cuda.so names and these runs don't use.

#define SIMULATED_NOT(name, ...) \
  cudaError_t name(__VA_ARGS__) { return answer(cudaErrorNotSupported); }
SIMULATED_NOT(cudaDeviceGetDefaultMemPool, cudaMemPool_t*, int)
SIMULATED_NOT(cudaFreeAsync, void*, cudaStream_t)
SIMULATED_NOT(cudaMallocAsync, void**, std::size_t, cudaStream_t)
SIMULATED_NOT(cudaGraphNodeGetDependencies, cudaGraphNode_t, cudaGraphNode_t*, cudaGraphEdgeData*, std::size_t*)
SIMULATED_NOT(cudaIpcCloseMemHandle, void*)
SIMULATED_NOT(cudaIpcGetMemHandle, cudaIpcMemHandle_t*, void*)
SIMULATED_NOT(cudaIpcOpenMemHandle, void**, cudaIpcMemHandle_t, unsigned)
SIMULATED_NOT(cudaMemPoolGetAttribute, cudaMemPool_t, cudaMemPoolAttr, void*)
SIMULATED_NOT(cudaMemPoolSetAccess, cudaMemPool_t, const cudaMemAccessDesc*, std::size_t)
SIMULATED_NOT(cudaMemPoolSetAttribute, cudaMemPool_t, cudaMemPoolAttr, void*)
SIMULATED_NOT(cudaMemPoolTrimTo, cudaMemPool_t, std::size_t)
SIMULATED_NOT(cudaMemcpyPeerAsync, void*, int, const void*, int, std::size_t, cudaStream_t)
#undef SIMULATED_NOT

}  // extern "C"
