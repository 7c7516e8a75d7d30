// LibTorch's ops on simulated GPUs, in the place of libtorch_cuda.so: each is done by its CPU kernel on tensors that
// share the device's memory. Tensors that are on the host where a GPU needs them on the device are refused, as are
// reads by the host while a stream records.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "memory.h"
#include "streams.h"

namespace c10::cuda::_internal {
void setHasPrimaryContext(bool (*function)(DeviceIndex));  // in no header
}

namespace simulated_gpu {
namespace {

cudaStream_t stream_for(const at::Tensor& tensor) {
  return c10::cuda::getCurrentCUDAStream(tensor.device().index()).stream();
}

void require_success(cudaError_t error, const std::string& what) {
  TORCH_CHECK(error == cudaSuccess, "CUDA error: ", cudaGetErrorString(error), " (", what, ")");
}

/// The same elements for CPU kernels.
at::Tensor on_host(const at::Tensor& tensor) {
  const c10::Storage& own = tensor.storage();
  c10::Storage storage(c10::Storage::use_byte_size_t(), own.nbytes(),
                       c10::DataPtr(host_alias(const_cast<void*>(own.data())), at::kCPU), c10::GetCPUAllocator(),
                       /*resizable=*/true);
  auto impl = c10::make_intrusive<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU),
                                                   tensor.dtype());
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  at::Tensor result(std::move(impl));
  if (tensor.is_conj()) result._set_conj(true);
  if (tensor.is_neg()) result._set_neg(true);
  return result;
}

std::size_t bytes_of(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return 0;
  return at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.element_size());
}

Access access_of(const at::Tensor& tensor, bool writes) {
  const std::size_t bytes = bytes_of(tensor);
  return {bytes == 0 ? nullptr : tensor.const_data_ptr(), bytes, writes};
}

/// One op: its arguments as CPU kernels take them, and what comes of it.
class Call {
 public:
  Call(const c10::OperatorHandle& op, const torch::jit::Stack& stack) : op_(op), name_(op.schema().name()) {
    const auto& arguments = op.schema().arguments();
    for (std::size_t a = 0; a < arguments.size(); ++a) {
      const c10::IValue& value = stack[stack.size() - arguments.size() + a];
      const bool writes = arguments[a].alias_info() != nullptr && arguments[a].alias_info()->isWrite();
      arguments_.push_back(converted(value, writes));
    }
    TORCH_CHECK(!given_.empty(), "simulated GPU: ", name_, " has no tensor on a device");
    for (const at::Tensor& tensor : left_on_host_)
      if (tensor.dim() > 0)
        refuse(name_ + " is given a tensor of the host, [" + c10::Join(", ", tensor.sizes()) +
               "], beside one on a device");
  }

  /// Puts the results onto the stack.
  void run(torch::jit::Stack& stack) {
    const std::lock_guard lock(simulation());
    const c10::DeviceGuard guard(given_.front().device());
    const cudaStream_t stream = stream_for(given_.front());
    if (waits()) require_success(wait_for(stream), name_);
    const auto memory = std::make_shared<ResultMemory>();
    Work work{.name = name_, .accesses = accesses_, .run = {}};
    work.run = [this, memory, stream, op = op_, arguments = arguments_] {
      torch::jit::Stack host = arguments;
      call(op, host);
      if (memory->is_made) return write_again(*memory, host);  // a replay, long after this is gone
      memory->is_made = true;
      make_results(stream, host, *memory);
    };
    submit(stream, std::move(work));
    for (c10::IValue& value : results_) stack.push_back(std::move(value));
  }

 private:
  /// Where the results are that have memory of their own, in their order; null for those that have none.
  struct ResultMemory {
    bool is_made = false;
    std::vector<std::pair<void*, std::size_t>> places;
  };

  at::Tensor converted(const at::Tensor& tensor, bool writes) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) return left_on_host_.push_back(tensor), tensor;
    accesses_.push_back(access_of(tensor, writes));
    given_.push_back(tensor);
    aliases_.push_back(on_host(tensor));
    return aliases_.back();
  }

  c10::IValue converted(const c10::IValue& value, bool writes) {
    if (value.isTensor()) return converted(value.toTensor(), writes);
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& each : value.toTensorVector()) list.push_back(converted(each, writes));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& each : value.toOptionalTensorVector())
        list.push_back(each ? std::optional<at::Tensor>(converted(*each, writes)) : std::nullopt);
      return list;
    }
    if (value.isDevice() && value.toDevice().is_cuda()) return c10::Device(at::kCPU);
    return value;
  }

  /// Whether the host waits for what comes of it.
  bool waits() const {
    static const std::set<std::string> kKnown = {
        "aten::nonzero",           "aten::_unique2", "aten::unique_dim",        "aten::masked_select",
        "aten::repeat_interleave", "aten::bincount", "aten::unique_consecutive"};
    if (kKnown.count(name_) > 0) return true;
    for (const auto& result : op_.schema().returns())
      if (result.type()->kind() == c10::TypeKind::BoolType || result.type()->kind() == c10::TypeKind::NumberType ||
          result.type()->kind() == c10::TypeKind::IntType || result.type()->kind() == c10::TypeKind::FloatType)
        return true;
    for (const at::Tensor& each : given_)  // a mask is counted first
      if (name_.starts_with("aten::index") && each.scalar_type() == at::kBool && each.dim() > 0 &&
          &each != &given_.front())
        return true;
    return false;
  }

  static void call(const c10::OperatorHandle& op, torch::jit::Stack& host) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const std::string& name = op.schema().name();
    if ((name == "aten::mm" || name == "aten::bmm") && op.schema().overload_name() == "dtype") {
      const at::ScalarType type = host[2].toScalarType();
      const at::Tensor a = host[0].toTensor().to(type), b = host[1].toTensor().to(type);
      host = {name == "aten::mm" ? at::mm(a, b) : at::bmm(a, b)};
      return;
    }
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &host);
  }

  void make_results(cudaStream_t stream, const torch::jit::Stack& host, ResultMemory& memory) {
    for (const c10::IValue& value : host) {
      if (value.isTensor()) {
        results_.emplace_back(result(stream, value.toTensor(), memory));
      } else if (value.isTensorList()) {
        c10::List<at::Tensor> list;
        for (const at::Tensor& each : value.toTensorVector()) list.push_back(result(stream, each, memory));
        results_.emplace_back(std::move(list));
      } else {
        results_.push_back(value);
      }
    }
  }

  at::Tensor result(cudaStream_t stream, const at::Tensor& host, ResultMemory& memory) {
    std::pair<void*, std::size_t>& place = memory.places.emplace_back(nullptr, 0);
    if (!host.defined()) return host;
    for (std::size_t g = 0; g < given_.size(); ++g)
      if (aliases_[g].unsafeGetTensorImpl() == host.unsafeGetTensorImpl()) return given(stream, g, place);
    const void* const data = host.storage().data();
    for (std::size_t g = 0; g < given_.size(); ++g)
      if (is_alias(data) && aliases_[g].storage().data() == data) return view_of(given_[g], host);
    at::Tensor made = at::empty_strided(host.sizes(), host.strides(), host.options().device(given_.front().device()));
    write(stream, host, made, place);
    return made;
  }

  /// A tensor that was written to in its place, or was too small for what it got.
  at::Tensor given(cudaStream_t stream, std::size_t g, std::pair<void*, std::size_t>& place) {
    const at::Tensor& host = aliases_[g];
    if (given_[g].sizes() == host.sizes()) return given_[g];
    given_[g].resize_(host.sizes());
    if (!is_alias(host.storage().data())) write(stream, host, given_[g], place);
    return given_[g];
  }

  void write(cudaStream_t stream, const at::Tensor& host, const at::Tensor& into,
             std::pair<void*, std::size_t>& place) {
    place.second = bytes_of(into);
    if (place.second == 0) return;
    also_writes(stream, name_, into.const_data_ptr(), place.second);
    place.first = host_alias(into.mutable_data_ptr());
    std::memcpy(place.first, host.const_data_ptr(), place.second);
  }

  static void write_again(const ResultMemory& memory, const torch::jit::Stack& host) {
    std::size_t next = 0;
    const auto write = [&](const at::Tensor& tensor) {
      const auto& [place, bytes] = memory.places.at(next++);
      if (place != nullptr) std::memcpy(place, tensor.const_data_ptr(), bytes);
    };
    for (const c10::IValue& value : host) {
      if (value.isTensor()) write(value.toTensor());
      if (value.isTensorList())
        for (const at::Tensor& each : value.toTensorVector()) write(each);
    }
  }

  static at::Tensor view_of(const at::Tensor& base, const at::Tensor& like) {
    auto impl = c10::make_intrusive<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(base.storage()),
                                                     base.key_set(), like.dtype());
    impl->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
    return at::Tensor(std::move(impl));
  }

  c10::OperatorHandle op_;
  std::string name_;
  torch::jit::Stack arguments_, results_;
  std::vector<at::Tensor> given_, aliases_, left_on_host_;
  std::vector<Access> accesses_;
};

/// Names of the ops that were done, for whoever asks whether LibTorch has them for GPUs: SIMULATED_GPU_OPS is the file.
void write_down(const c10::OperatorHandle& op) {
  static const char* const file = std::getenv("SIMULATED_GPU_OPS");
  if (file == nullptr) return;
  static std::set<std::string> known;
  const std::lock_guard lock(simulation());
  const std::string name =
      op.schema().name() + (op.schema().overload_name().empty() ? "" : "." + op.schema().overload_name());
  if (known.insert(name).second) std::ofstream(file, std::ios::app) << name + '\n';
}

void on_gpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  write_down(op);
  Call call(op, *stack);
  torch::jit::drop(*stack, op.schema().arguments().size());
  call.run(*stack);
}

void fill_with_nan(const at::Tensor& tensor) {
  if (tensor.storage().nbytes() == 0) return;
  const std::lock_guard lock(simulation());
  catch_up(stream_for(tensor));
  std::memset(host_alias(const_cast<void*>(tensor.storage().data())), 0xff, tensor.storage().nbytes());
}

const c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

at::Tensor empty(c10::IntArrayRef sizes, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  at::globalContext().lazyInitDevice(at::kCUDA);
  const c10::DeviceGuard guard(c10::device_or_default(device));
  at::Tensor made = at::detail::empty_generic(sizes, c10::cuda::CUDACachingAllocator::get(), kKeys,
                                              c10::dtype_or_default(type), format);
  fill_with_nan(made);
  return made;
}

at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, std::optional<at::ScalarType> type,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  at::globalContext().lazyInitDevice(at::kCUDA);
  const c10::DeviceGuard guard(c10::device_or_default(device));
  at::Tensor made = at::detail::empty_strided_generic(sizes, strides, c10::cuda::CUDACachingAllocator::get(), kKeys,
                                                      c10::dtype_or_default(type));
  fill_with_nan(made);
  return made;
}

const at::Tensor& resize(const at::Tensor& self, c10::IntArrayRef sizes, std::optional<at::MemoryFormat>) {
  c10::TensorImpl* const impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(sizes);
  const std::size_t bytes = static_cast<std::size_t>(impl->numel() + impl->storage_offset()) * self.element_size();
  c10::StorageImpl& storage = *impl->unsafe_storage().unsafeGetStorageImpl();
  if (bytes <= storage.nbytes()) return self;
  c10::DataPtr grown = storage.allocator()->allocate(bytes);
  if (storage.nbytes() > 0) {
    const at::Tensor from = at::from_blob(storage.mutable_data(), {static_cast<std::int64_t>(storage.nbytes())},
                                          at::TensorOptions(at::kByte).device(self.device()));
    at::from_blob(grown.get(), from.sizes(), from.options()).copy_(from);
  }
  storage.set_data_ptr_noswap(std::move(grown));
  storage.set_nbytes(bytes);
  return self;
}

at::Scalar item(const at::Tensor& self) {
  const std::lock_guard lock(simulation());
  const c10::DeviceGuard guard(self.device());
  require_success(wait_for(stream_for(self)), "a value is read");
  return on_host(self).item();
}

/// As LibTorch copies: by the runtime where the bytes lie alike on both sides, else by way of a copy of its own.
at::Tensor& copy(at::Tensor& self, const at::Tensor& given, bool non_blocking) {
  if (self.numel() == 0) return self;
  const at::Tensor source = given.expand_as(self);
  const bool is_plain = self.scalar_type() == source.scalar_type() && self.is_contiguous() && source.is_contiguous() &&
                        !self.is_conj() && !source.is_conj() && !self.is_neg() && !source.is_neg();
  const at::Tensor& device = self.is_cuda() ? self : source;
  const c10::DeviceGuard guard(device.device());
  const cudaStream_t stream = stream_for(device);
  if (self.is_cuda() && source.is_cuda()) {
    TORCH_CHECK(self.device() == source.device(), "simulated GPU: a copy from one device to another");
    Work work{.name = "aten::copy_", .accesses = {access_of(source, false), access_of(self, true)}, .run = {}};
    work.run = [to = on_host(self), from = on_host(source)] { to.copy_(from); };
    if (is_plain) work.from = source.const_data_ptr(), work.to = self.mutable_data_ptr();
    submit(stream, std::move(work));
    return self;
  }
  if (is_plain) {
    require_success(
        cudaMemcpyAsync(self.mutable_data_ptr(), source.const_data_ptr(), self.nbytes(), cudaMemcpyDefault, stream),
        "copy_");
    if (!non_blocking) require_success(wait_for(stream), "copy_");
    return self;
  }
  require_success(wait_for(stream), "copy_ by way of another tensor");
  if (self.is_cpu()) return self.copy_(on_host(source));
  Work work{.name = "aten::copy_", .accesses = {access_of(self, true)}, .run = {}};
  work.run = [to = on_host(self), from = source.clone()] { to.copy_(from); };
  submit(stream, std::move(work));
  return self;
}

struct PageLocked final : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    void* address = nullptr;
    require_success(cudaHostAlloc(&address, bytes, 0), "page-locked memory");
    return {address, address, &release, at::kCPU};
  }
  static void release(void* address) { cudaFreeHost(address); }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace
}  // namespace simulated_gpu

namespace at::cuda {

struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override { c10::cuda::CUDACachingAllocator::init(c10::cuda::device_count()); }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return c10::cuda::device_count() > 0; }
  bool hasCUDA() const override { return c10::cuda::device_count() > 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  const Generator& getDefaultGenerator(DeviceIndex) const override {
    static const Generator generator = at::detail::createCPUGenerator();
    return generator;
  }
  bool isPinnedPtr(const void* address) const override { return simulated_gpu::is_page_locked(address); }
  Allocator* getPinnedMemoryAllocator() const override {
    static simulated_gpu::PageLocked allocator;
    return &allocator;
  }
  Allocator* getCUDADeviceAllocator() const override { return c10::cuda::CUDACachingAllocator::get(); }
  Device getDeviceFromPtr(void* address) const override {
    return {at::kCUDA, static_cast<DeviceIndex>(simulated_gpu::device_of(address))};
  }
  DeviceIndex deviceCount() const override { return c10::cuda::device_count(); }
  int getNumGPUs() const override { return c10::cuda::device_count(); }
  DeviceIndex current_device() const override { return c10::cuda::current_device(); }
  DeviceIndex getCurrentDevice() const override { return c10::cuda::current_device(); }
  void deviceSynchronize(DeviceIndex device) const override {
    const c10::DeviceGuard guard(Device(at::kCUDA, device));
    cudaDeviceSynchronize();
  }
};

[[maybe_unused]] const bool kIsTold =
    (c10::cuda::_internal::setHasPrimaryContext([](DeviceIndex) { return true; }), true);

MempoolId_t graph_pool_handle() {
  static CaptureId_t last = 0;
  return {0, ++last};
}

}  // namespace at::cuda

namespace at {
using cuda::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&simulated_gpu::on_gpu>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", TORCH_FN(simulated_gpu::empty));
  library.impl("empty_strided", TORCH_FN(simulated_gpu::empty_strided));
  library.impl("resize_", TORCH_FN(simulated_gpu::resize));
  library.impl("_local_scalar_dense", TORCH_FN(simulated_gpu::item));
  library.impl("copy_", TORCH_FN(simulated_gpu::copy));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("unfold", TORCH_FN(at::native::unfold));
  // These are made of stubs that libtorch_cuda.so would fill.
  for (const char* name : {"convolution", "convolution_backward"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&simulated_gpu::on_gpu>());
}
