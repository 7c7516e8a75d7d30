// How sharp the loss of each row is in its own inputs: curvature measures it, results hold it.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace hesspect {

/// Which way a row's inputs are moved for the change of its gradient.
enum class InputDirection {
  kSign,     // the gradient's signs, over their norm
  kGradient  // the gradient, over its norm
};

inline std::string to_string(InputDirection direction) {
  return direction == InputDirection::kSign ? "sign" : "gradient";
}

/// Of a row's loss ℓ and its own inputs x, D numbers. NaN where the row's loss has no terms.
struct InputRow {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  std::int64_t row = 0;  // global
  double loss = kNone;   // NaN, too, where the program gives one loss for several rows
  double gradient_norm = kNone;
  double largest = kNone;          // eigenvalue of ∇²ℓ
  double largest_error = kNone;    // bound of its error
  double magnitude = kNone;        // the eigenvalue of largest magnitude, with its sign
  double magnitude_error = kNone;  // likewise
  bool converged = false;          // both errors are as small as was asked for
  double step = kNone;             // h
  double change = kNone;           // ‖∇ℓ(x + h z) − ∇ℓ(x)‖²
};

/// A quantile over the rows, and its confidence interval, which order statistics give whatever the distribution is.
struct Quantile {
  double value = InputRow::kNone, lower = InputRow::kNone, upper = InputRow::kNone;
};

/// Of the rows that have a loss.
struct InputQuantiles {
  double share = 0;
  Quantile gradient_norm, largest, magnitude, change;  // of |magnitude|
};

struct InputSharpness {
  std::vector<std::string> variables;  // inputs, and what integer ones look up
  std::int64_t dimensions = 0;         // D, where all rows have as many
  std::string direction = "sign";
  std::int64_t most_products = 0;  // that a row took
  std::vector<InputRow> rows;      // in order
  std::vector<InputRow> fragile;   // some, of largest |magnitude| first
  double confidence = 0.9;         // of the quantiles' intervals
  std::vector<InputQuantiles> quantiles;
};

}  // namespace hesspect
