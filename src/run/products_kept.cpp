#include "hesspect/run/products_kept.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/run/ledger.h"

namespace hesspect {

std::int64_t products_kept(const CheckpointFolder& folder) try {
  std::vector<std::string> warnings;
  const std::optional<LedgerState> state = read_state(folder, warnings);
  if (!state) return 0;
  std::int64_t kept = std::max<std::int64_t>(0, std::ssize(state->samples) - kSymmetryProbes);
  for (const FinishedProbe& probe : state->finished) kept += products_of(probe);
  for (const FinishedBlock& block : state->blocks) kept += products_of(block);
  if (state->eigenvalues) kept += state->eigenvalues->steps;
  for (const std::int64_t probe : folder.probes(state->run_id))
    if (const std::vector<ProbeManifest> whole = folder.manifests(probe, state->run_id); !whole.empty())
      kept += whole.front().steps;
  return kept;
} catch (const Error&) {
  return 0;
}

}  // namespace hesspect
