// Figures that are measured by the loss itself rather than drawn from a spectrum: finite steps, and inputs.
#pragma once

#include <vector>

#include "hesspect/report/figures.h"

namespace hesspect {

/// Those that the result has. They are exact to the run's rounding, but for quantiles over rows, which have intervals.
std::vector<Figure> measured_figures(const RunResult& result);

}  // namespace hesspect
