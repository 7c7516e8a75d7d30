// The precision in which LibTorch multiplies matrices, for as long as a scope lives.
//
//   const PrecisionScope scope(MatrixPrecision::kBf16);
//   at::mm(a, b);  // of float32: operands rounded to bfloat16, summed in float32
//
// On CPUs oneDNN does it where it has amx_bf16, for products that are large enough to gain by it (rounded_products.h);
// most adjoints of a convolution's weights it takes in float32. On GPUs tf32 is a mode of cuBLAS and cuDNN; bf16 is
// products of rounded copies, with convolutions and what autograd differentiates in tf32. float64 is never touched.
// LibTorch's settings are the process's: while a scope lives only its thread may multiply.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <string>

#include "hesspect/core/matrix_precision.h"

namespace hesspect {

class PrecisionScope {
 public:
  explicit PrecisionScope(MatrixPrecision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  struct Settings;
  std::unique_ptr<Settings> before_;
};

/// What a device multiplies matrices with.
struct MatrixUnits {
  bool tf32 = false, bf16 = false;
  std::string device{};        // in messages: "the CPU of node3"
  std::string lack{};          // why there is no bf16: "has no amx_bf16"
  std::string lack_of_tf32{};  // and why no tf32
};
MatrixUnits matrix_units(c10::Device device);
/// @throws UsageError where the units cannot do it, with the reason
void require_units(MatrixPrecision precision, const MatrixUnits& units);

}  // namespace hesspect
