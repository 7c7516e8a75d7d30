// How far figures would be off on other rows of the same population, and the intervals for what that population has.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "hesspect/core/row_groups.h"

namespace hesspect {

/// NaN: not known.
struct PopulationInterval {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  double error = kUnknown;  // standard error that the data make
  /// At the run's confidence, of the data's error and of the run's (probes, Lanczos) together.
  double lower = kUnknown, upper = kUnknown;
  bool known() const { return lower == lower && upper == upper; }
};

struct EigenDataError {
  PopulationInterval interval;
  double bias = PopulationInterval::kUnknown;  // what an eigenvector fitted to these rows adds to the eigenvalue
  std::vector<double> of_group;                // [groups] uᵀH_g u of each group's own mean loss; NaN: not known
};

struct DataError {
  RowGroups groups;
  double confidence = 0.9;
  PopulationInterval loss, trace;
  double loss_value = PopulationInterval::kUnknown;
  std::string trace_from;  // "eigenvectors and probes", "probes"; empty: not told
  /// [groups] what each group's rows say the trace is, in the mean over the probes; empty: not told.
  std::vector<double> trace_of_group;
  std::vector<EigenDataError> eigenvalues;  // in the result's order; empty: none
  std::vector<PopulationInterval> layers;   // their traces, in the result's order; empty: none
};

}  // namespace hesspect
