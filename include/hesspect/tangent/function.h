// The functions of one number that the kernels know, with their first two derivatives.
//
// This text is compiled by NVRTC as well: no library headers.
#pragma once

namespace hesspect::fused {

/// What p[0], p[1], p[2] are stands beside those that have parameters.
enum class Function : int {
  kGelu,      // by erf
  kGeluTanh,  // by tanh
  kSilu,
  kTanh,
  kSigmoid,
  kRelu,
  kLeakyRelu,  // slope
  kElu,        // alpha, scale, input scale
  kSoftplus,   // beta, threshold
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kSin,
  kCos,
  kSquare,
  kCube,
  kReciprocal,
  kPow,  // exponent
  kLog1p,
  kExpm1,
  kErf,
  kMish,
  kHardswish,
  kHardsigmoid,
  kHardtanh,  // lower, upper; its slope is 0 at both
  kClamp,     // lower, upper; its slope is 1 at both
  kLogSigmoid,
  kAbs,
  kCount,
};

}  // namespace hesspect::fused
