// How the functions of hesspect/tangent/kernels.h turn tensors into a kernel's pointers, and run it: on the CPU over
// at::parallel_for, on a GPU through the program that NVRTC has compiled.
//
// Files that include this are compiled with OpenMP, or at::parallel_for would run on one thread.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu_table.h"
#include "hesspect/tangent/kernels.h"

namespace hesspect::fused {

using raw::Index;

/// The tables of the instruction set in use.
template <class T>
const raw::CpuTable<T>& cpu_table();

/// Runs a kernel's units on a GPU, on the current stream, one block of threads to a unit at a time.
void run_on_gpu(const char* kernel, bool in_double, const void* arguments, Index units, Index columns,
                c10::Device device);

/// How the work is cut: units that don't touch each other's results, each of `rows` rows of `columns` columns.
struct Units {
  Index count;
  Index columns;
  Index rows = 1;
};

template <class T, class Arguments>
void run(const char* kernel, void (*raw::CpuTable<T>::*loop)(const Arguments&, Index, Index),
         const Arguments& arguments, Units units, c10::Device device) {
  if (units.count == 0 || units.columns == 0) return;
  if (device.is_cuda())
    return run_on_gpu(kernel, sizeof(T) == sizeof(double), &arguments, units.count, units.columns, device);
  constexpr Index kElementsOfThread = 1 << 15;  // fewer are not worth a thread
  const Index grain = std::max<Index>(1, kElementsOfThread / std::max<Index>(1, units.columns * units.rows));
  const auto cpu = cpu_table<T>().*loop;
  at::parallel_for(0, units.count, grain, [&](Index begin, Index end) { cpu(arguments, begin, end); });
}

/// Runs the kernel of that name; T is its type.
#define HESSPECT_RUN(kernel, ...) run(#kernel, &raw::CpuTable<T>::kernel, __VA_ARGS__)

/// Rows that a unit sums up where rows are summed into columns. Results depend on it, so not on the number of threads.
inline Index rows_per_unit(c10::Device device) { return device.is_cuda() ? 16 : 64; }

/// Calls f with a float or a double, as `tensor` is of; throws where it is of neither.
template <class F>
void for_type_of(const at::Tensor& tensor, F f) {
  if (tensor.defined() && tensor.scalar_type() == at::kFloat) return f(float());
  if (tensor.defined() && tensor.scalar_type() == at::kDouble) return f(double());
  throw std::logic_error("a fused kernel takes float32 and float64 alone");
}

/// Gives a kernel its pointers, and throws std::logic_error where a tensor is not what the kernel expects: contiguous,
/// of `like`'s type and device, of so many elements.
template <class T>
class Pointers {
 public:
  Pointers(const char* kernel, const at::Tensor& like) : kernel_(kernel), device_(like.device()) {}

  T* of(const at::Tensor& tensor, Index elements, const char* name) const {
    return static_cast<T*>(checked(tensor, elements, c10::CppTypeToScalarType<T>::value, name));
  }
  Index* index(const at::Tensor& tensor, Index elements, const char* name) const {
    return static_cast<Index*>(checked(tensor, elements, at::kLong, name));
  }
  double* sums(const at::Tensor& tensor, Index elements, const char* name) const {
    return static_cast<double*>(checked(tensor, elements, at::kDouble, name));
  }

  /// As those, but null where the tensor is undefined.
  T* or_null(const at::Tensor& tensor, Index elements, const char* name) const {
    return tensor.defined() ? of(tensor, elements, name) : nullptr;
  }
  Index* index_or_null(const at::Tensor& tensor, Index elements, const char* name) const {
    return tensor.defined() ? index(tensor, elements, name) : nullptr;
  }
  double* sums_or_null(const at::Tensor& tensor, Index elements, const char* name) const {
    return tensor.defined() ? sums(tensor, elements, name) : nullptr;
  }

  /// `tangents` parts along the first dimension, each of so many contiguous elements; sets the stride between them.
  /// Null where the tensor is undefined.
  T* parts_or_null(const at::Tensor& tensor, Index tangents, Index elements, Index& stride, const char* name) const {
    stride = elements;
    if (!tensor.defined()) return nullptr;
    if (tensor.is_contiguous() && tensor.numel() == tangents * elements) return of(tensor, tangents * elements, name);
    if (tensor.dim() == 0 || tensor.size(0) != tangents) refuse(tensor, tangents * elements, name);
    stride = tensor.stride(0);
    return of(tensor.select(0, 0), elements, name);
  }

  /// As that, but `one` for each of the tangents where the tensor is undefined.
  T* parts_or(const at::Tensor& one, const at::Tensor& tensor, Index tangents, Index elements, Index& stride,
              const char* name) const {
    if (tensor.defined()) return parts_or_null(tensor, tangents, elements, stride, name);
    stride = 0;
    return of(one, elements, name);
  }

  /// How often `part` elements go into the tensor; a rest is refused.
  Index count(const at::Tensor& tensor, Index part, const char* name) const {
    if (!tensor.defined() || part <= 0 || tensor.numel() % part != 0) refuse(tensor, part, name);
    return tensor.numel() / part;
  }

  c10::Device device() const { return device_; }

 private:
  void* checked(const at::Tensor& tensor, Index elements, at::ScalarType type, const char* name) const {
    if (!tensor.defined() || tensor.numel() != elements || tensor.scalar_type() != type || !tensor.is_contiguous() ||
        tensor.device() != device_)
      refuse(tensor, elements, name);
    return tensor.data_ptr();
  }

  [[noreturn]] void refuse(const at::Tensor& tensor, Index elements, const char* name) const;

  const char* kernel_;
  c10::Device device_;
};

extern template class Pointers<float>;
extern template class Pointers<double>;

/// out[k, c] += Σ partial[k, block, c].
template <class T>
void add_partials(const at::Tensor& partial, T* out, Index stride, Index batches, Index blocks, Index columns) {
  const raw::SumPartials<T> q{static_cast<const T*>(partial.data_ptr()), out, blocks, columns, batches, stride};
  const Index units = (columns + raw::kColumnUnit - 1) / raw::kColumnUnit * batches;
  HESSPECT_RUN(sum_partials, q, {units, std::min(columns, raw::kColumnUnit), blocks}, partial.device());
}

}  // namespace hesspect::fused
