#include "hesspect/tangent/precision.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "hesspect/core/errors.h"
#include "hesspect/core/gpu_support.h"
#include "hesspect/core/host.h"
#include "rounded_products.h"

namespace hesspect {
namespace {

/// The CPU has tiles of bfloat16, and the system saves their registers.
bool has_amx_bf16() {
#ifdef __x86_64__
  constexpr unsigned kAmx = (1U << 22) | (1U << 24), kSaved = (1U << 17) | (1U << 18), kOsSaves = 1U << 27;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsSaves) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmx) != kAmx) return false;
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kSaved) == kSaved;
#else
  return false;
#endif
}

/// "ONEDNN_MAX_CPU_ISA=…" where the environment keeps oneDNN from these units; else "".
std::string setting_against_amx() {
  for (const char* name : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    const char* const value = std::getenv(name);
    if (value == nullptr) continue;
    std::string upper = value;
    std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    const bool limits = !upper.empty() && upper != "ALL" && upper != "DEFAULT";
    return limits && upper.find("AMX") == std::string::npos ? std::string(name) + "=" + value : "";
  }
  return "";
}

/// Whether LibTorch's products do round when they are told: 2.11's mm does not, in spite of the units and the setting.
bool libtorch_rounds() {
  static const bool rounds = [] {
    const at::NoGradGuard no_grad;
    const at::Tensor a = at::linspace(-1, 1, 160 * 160).view({160, 160}), exact = at::mm(a, a);
    const RoundedProducts scope(Rounding::kByDevice);
    return !at::equal(at::mm(a, a), exact);
  }();
  return rounds;
}

MatrixUnits cpu_units() {
  MatrixUnits units{.device = "the CPU of " + host_name(), .lack_of_tf32 = "has no units for it"};
  if (!has_amx_bf16())
    units.lack = "has no amx_bf16, without which oneDNN multiplies no faster in bfloat16";
  else if (const std::string setting = setting_against_amx(); !setting.empty())
    units.lack = "may not use its amx_bf16 (" + setting + ")";
  else if (!libtorch_rounds())
    units.lack = "has amx_bf16, but this LibTorch multiplies in float32 in spite of being told";
  units.bf16 = units.lack.empty();
  return units;
}

MatrixUnits gpu_units(int index) {
  const GpuSupport* const gpu = gpu_library().support;
  const int known = gpu == nullptr ? 0 : gpu->compute_capability(index), major = known / 10;
  const std::string capability = std::to_string(major) + "." + std::to_string(known % 10);
  MatrixUnits units{.device = "the GPU of " + host_name()};
  units.tf32 = units.bf16 = major >= 8;
  units.lack = units.lack_of_tf32 = "has compute capability " + capability + ", and 8.0 is the first with such units";
  return units;
}

}  // namespace

struct PrecisionScope::Settings {
  at::Float32Precision convolutions;  // of oneDNN; products of matrices it rounds as rounded_products.h says
  bool cublas, cudnn;
  std::optional<RoundedProducts> rounded;
};

PrecisionScope::PrecisionScope(MatrixPrecision precision) : before_(std::make_unique<Settings>()) {
  at::Context& context = at::globalContext();
  const bool is_low = precision == MatrixPrecision::kBf16, is_fast = precision != MatrixPrecision::kFp32;
  before_->convolutions = context.float32Precision(at::Float32Backend::MKLDNN, at::Float32Op::CONV);
  before_->cublas = context.allowTF32CuBLAS();
  before_->cudnn = context.allowTF32CuDNN();
  context.setFloat32Precision(at::Float32Backend::MKLDNN, at::Float32Op::CONV,
                              is_low ? at::Float32Precision::BF16 : at::Float32Precision::IEEE);
  context.setAllowTF32CuBLAS(is_fast);
  context.setAllowTF32CuDNN(is_fast);
  if (is_low)
    before_->rounded.emplace(Rounding::kByDevice);
  else if (RoundedProducts::any())
    before_->rounded.emplace(Rounding::kNone);
}

PrecisionScope::~PrecisionScope() {
  at::Context& context = at::globalContext();
  context.setFloat32Precision(at::Float32Backend::MKLDNN, at::Float32Op::CONV, before_->convolutions);
  context.setAllowTF32CuBLAS(before_->cublas);
  context.setAllowTF32CuDNN(before_->cudnn);
}

MatrixUnits matrix_units(c10::Device device) { return device.is_cuda() ? gpu_units(device.index()) : cpu_units(); }

void require_units(MatrixPrecision precision, const MatrixUnits& units) {
  const std::string option = "--precision " + to_string(precision) + ": ";
  if (precision == MatrixPrecision::kTf32 && !units.tf32)
    throw UsageError(option + units.device + " " + units.lack_of_tf32 + "; give --precision fp32" +
                     (units.bf16 ? " or bf16" : ""));
  if (precision == MatrixPrecision::kBf16 && !units.bf16)
    throw UsageError(option + units.device + " " + units.lack + "; give --precision fp32");
}

}  // namespace hesspect
