// In what precision matrices are multiplied within products, and what that was found to change.
#pragma once

#include <string>

namespace hesspect {

/// Of operands of matrix products alone. Their sums, and everything between them, are in the run's dtype.
enum class MatrixPrecision {
  kFp32,  // as the dtype is: nothing is rounded
  kTf32,  // 11 bits
  kBf16,  // 8 bits
};

inline std::string to_string(MatrixPrecision precision) {
  switch (precision) {
    case MatrixPrecision::kFp32: return "fp32";
    case MatrixPrecision::kTf32: return "tf32";
    case MatrixPrecision::kBf16: return "bf16";
  }
  return "";
}

/// How far products H̃x of a run are from Hx in full precision: for v of random signs, which sees the whole spectrum,
/// and for w = Hv, which leans to the eigenvalues of largest magnitude. All zero in full precision.
struct PrecisionEffect {
  double error = 0;                   // ‖H̃v − Hv‖ / ‖Hv‖
  double rayleigh_error = 0;          // |v·H̃v − v·Hv| / |v·Hv|
  double leading_error = 0;           // ‖H̃w − Hw‖ / ‖Hw‖
  double leading_rayleigh_error = 0;  // |w·H̃w − w·Hw| / |w·Hw|
  double moved = 0;                   // ‖H̃v − Hv‖ / ‖v‖: root mean square of what moves eigenvalues
  double time = 1;                    // of a product with nothing kept, over that in full precision
};

}  // namespace hesspect
