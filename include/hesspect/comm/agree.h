// Errors that all ranks agree on: a step that may fail on one rank alone is run inside `agree`, and if it failed
// anywhere, every rank throws the same error (that of the lowest failing rank), so that none is left waiting.
//
//   at::Tensor row = agreed(comm, [&] { return at::empty({chunk}, options); });  // or MemoryError on all ranks
#pragma once

#include <functional>
#include <optional>

#include "hesspect/comm/communicator.h"

namespace hesspect {

/// Runs `step` on every rank, which must not communicate inside it; then, collectively, learns whether all succeeded.
/// @throws the lowest failing rank's error on every rank, its type and exit code kept
///         (UsageError, InputError, MemoryError, NumericalError, CommError; std::bad_alloc becomes MemoryError,
///         anything else an Error with ExitCode::kInternal)
void agree(Communicator& comm, const std::function<void()>& step);

/// The same for a step with a value.
template <class F>
auto agreed(Communicator& comm, F&& step) {
  std::optional<decltype(step())> value;
  agree(comm, [&] { value.emplace(step()); });
  return std::move(*value);
}

}  // namespace hesspect
