// What a result holds of features: parts of the parameters that stand for something in the data.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "hesspect/spectrum/estimates.h"
#include "hesspect/spectrum/rank_correlation.h"

namespace hesspect {

/// What steps of one relative length within a feature do to the loss.
struct FeatureChange {
  double value = 0, lower = 0, upper = 0;          // mean over directions, with its interval; NaN: none
  double skewness = 0;                             // of what was averaged over draws, of the largest possible; NaN
  double predicted = 0, predicted_half_width = 0;  // by the quadratic model
  double largest = 0;                              // of any draw, either way
  double along = 0;                                // along the first eigenvector, the larger of both ways
  bool controlled = false;                         // the quadratic form's part is from the trace
};

struct FeatureResult {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  std::string name;
  std::string kind;  // table, bucket, row, rows, columns, tensors or group
  std::vector<std::string> tensors;
  std::int64_t parameters = 0;  // those that no row of the data uses included
  std::int64_t in_use = 0;      // of the block that is analysed
  double look_ups = kUnknown;   // of its rows
  double rows = kUnknown;       // of the data that touch it
  bool nested = false;          // it holds parameters of a smaller feature: it is in no correlation

  Estimate largest{kUnknown, kUnknown};  // eigenvalue; the error is a bound
  double trace = kUnknown, trace_half_width = kUnknown;
  double norm = kUnknown;              // of its parameters in use
  std::vector<FeatureChange> changes;  // by size
  std::int64_t products = 0;
  double product_s = 0;
  bool converged = true;

  double mean() const { return in_use > 0 ? trace / static_cast<double>(in_use) : 0; }
  double mean_half_width() const { return in_use > 0 ? trace_half_width / static_cast<double>(in_use) : 0; }
};

/// A rank correlation over the features that are not nested.
struct FeatureCorrelation {
  std::string what;  // "frequency, largest"
  RankCorrelation found;
  std::string missing;  // why it is not known; empty: it is
};

struct FeaturesResult {
  std::vector<FeatureResult> each;  // of largest eigenvalue first
  std::vector<double> rho;          // sizes of steps, relative to a feature's norm
  std::int64_t draws = 0;
  double confidence = 0.9;
  double loss = 0;      // at the parameters, as the changes' losses are added up
  double rounding = 0;  // what losses are exact to, at best
  std::int64_t data_rows = 0;
  std::vector<FeatureCorrelation> correlations;

  /// Share of the rows of data that touch a feature.
  double frequency(const FeatureResult& feature) const {
    return data_rows > 0 ? feature.rows / static_cast<double>(data_rows) : FeatureResult::kUnknown;
  }
};

}  // namespace hesspect
