#include "launch.h"

#include <atomic>
#include <sstream>

#include "hesspect/core/gpu_support.h"

namespace hesspect::fused {
namespace {

std::atomic<InstructionSet>& chosen() {
  static std::atomic<InstructionSet> set = has(InstructionSet::kAvx512) ? InstructionSet::kAvx512
                                           : has(InstructionSet::kAvx2) ? InstructionSet::kAvx2
                                                                        : InstructionSet::kBaseline;
  return set;
}

}  // namespace

bool has(InstructionSet set) {
#if defined(HESSPECT_X86_KERNELS)
  switch (set) {
    case InstructionSet::kBaseline: return true;
    case InstructionSet::kAvx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::kAvx512:
      return has(InstructionSet::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  }
  return false;
#else
  return set == InstructionSet::kBaseline;
#endif
}

InstructionSet instruction_set() { return chosen(); }

void use_instruction_set(InstructionSet set) {
  if (!has(set)) throw std::logic_error("this machine lacks the instruction set that was asked for");
  chosen() = set;
}

template <>
const raw::CpuTable<float>& cpu_table<float>() {
#if defined(HESSPECT_X86_KERNELS)
  if (instruction_set() == InstructionSet::kAvx512) return raw::avx512::kFloat;
  if (instruction_set() == InstructionSet::kAvx2) return raw::avx2::kFloat;
#endif
  return raw::baseline::kFloat;
}

template <>
const raw::CpuTable<double>& cpu_table<double>() {
#if defined(HESSPECT_X86_KERNELS)
  if (instruction_set() == InstructionSet::kAvx512) return raw::avx512::kDouble;
  if (instruction_set() == InstructionSet::kAvx2) return raw::avx2::kDouble;
#endif
  return raw::baseline::kDouble;
}

template <class T>
void Pointers<T>::refuse(const at::Tensor& tensor, Index elements, const char* name) const {
  std::ostringstream message;
  message << "fused kernel " << kernel_ << ": " << name << " should be " << elements << " contiguous elements ("
          << c10::CppTypeToScalarType<T>::value << ", or as its name says) on " << device_ << ", not ";
  if (!tensor.defined())
    message << "undefined";
  else
    message << tensor.scalar_type() << ' ' << tensor.sizes() << (tensor.is_contiguous() ? "" : " with gaps") << " on "
            << tensor.device();
  throw std::logic_error(message.str());
}

template class Pointers<float>;
template class Pointers<double>;

void run_on_gpu(const char* kernel, bool in_double, const void* arguments, Index units, Index columns,
                c10::Device device) {
  const GpuLibrary& gpu = gpu_library();
  if (gpu.support == nullptr) throw std::logic_error("a kernel for a GPU: " + gpu.lack);
  gpu.support->run_kernel(kernel, in_double, arguments, units, columns, device.index());
}

}  // namespace hesspect::fused
