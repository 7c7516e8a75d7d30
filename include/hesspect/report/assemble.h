// From a finished run's ledger to its result.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/core/row_groups.h"
#include "hesspect/io/result_file.h"
#include "hesspect/run/ledger.h"

namespace hesspect {

/// What is known of a run beside its ledger.
struct RunFacts {
  ProcessInfo process;                   // without the run's id and files, which the ledger has
  Diagnostics diagnostics;               // of problem, operator and machine; the ledger has the rest
  std::vector<std::string> layer_names;  // of the parameter tensors
  std::vector<std::int64_t> layer_sizes;
  std::vector<std::string> warnings;       // told already
  std::optional<InitialDistance> initial;  // without what is weighted by it
  double symmetry_bound = 0;               // above it a product is not symmetric to rounding
  RowGroups row_groups;                    // that products were told apart by
};

/// Draws eigenvalues, trace and density from the ledger, and warns, in the result and on stderr, of what is not as it
/// should be. Rank 0.
/// @param elapsed_s, product_s  of this start
RunResult assemble(RunFacts facts, const Goals& goals, const Ledger& ledger, double elapsed_s, double product_s);

/// Whether all is as good as was asked for.
bool converged(const RunResult& result);

}  // namespace hesspect
