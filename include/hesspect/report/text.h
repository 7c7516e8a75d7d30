// A result in words: one text for the end of a run and for `hesspect inspect`.
#pragma once

#include <string>
#include <vector>

#include "hesspect/io/result_file.h"

namespace hesspect {

/// What the run found out, and at what cost, in lines.
std::vector<std::string> findings(const RunResult& result);

/// The whole result in a page: what was run, the findings, the density.
std::string page(const RunResult& result);

/// The density over λ as text, log scale, one row a decade.
std::string plot_density(const Density& density);

}  // namespace hesspect
