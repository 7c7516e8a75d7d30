// What is said of a model beside its spectrum: information matrices, relative flatness, and how well it predicts on its
// own rows and on others. Plain structs that `io` writes and reads.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// A number with an interval of its own shape; NaN where it is not known.
struct Interval {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  double value = kUnknown, lower = kUnknown, upper = kUnknown;
};

/// Of the Fisher matrix F of the model's own distribution, the empirical one C of the data's targets (both with a term
/// of the loss as the unit) and the run's matrix H.
struct Information {
  std::string obstacle;  // why nothing is measured; empty: it is
  /// Squared Fisher-Rao norms θᵀFθ and θᵀCθ: exact but for rounding. Source: Liang et al. 2019, 1711.01530
  double fisher_rao = Interval::kUnknown, empirical_fisher_rao = Interval::kUnknown;
  /// From the same random vectors. Source of the ratios: Thomas et al. 2020, 1906.07774
  Interval trace, fisher_trace, empirical_trace;
  Interval empirical_over_fisher, empirical_over_hessian;
  double confidence = 0.9;
  std::int64_t samples = 0, products = 0;
};

/// Σ_{s,s'} ⟨w_s, w_s'⟩ Tr(H_{s,s'}) over the rows of a layer's weights. Source: Petzka et al. 2021, 2001.00939
struct RelativeFlatness {
  std::string obstacle;  // why it is not measured; empty: it is
  std::string layer;     // the parameter tensor
  std::int64_t rows = 0, columns = 0;
  Interval value;
  double confidence = 0.9;
  std::int64_t samples = 0;
};

/// One data file's.
struct DataQuality {
  std::string file, sha256;
  std::int64_t rows = 0;
  double terms = 0;  // that are classified
  Interval loss;     // as the run has it
  // Where targets are classes, or 0 and 1:
  Interval accuracy, nll, ece, brier;
  double calibrated_ece = Interval::kUnknown;  // what a calibrated model of these confidences shows, in the mean
};

/// The run's own data and others, side by side.
struct DataComparison {
  DataQuality own, other;
  Interval gap;          // loss on the others − loss on the own
  std::string obstacle;  // why nothing is classified; empty: it is
  double confidence = 0.9;
  std::int64_t resamples = 0;
};

}  // namespace hesspect
