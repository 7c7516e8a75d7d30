// The error types of hesspect and the process exit codes that they end in.
//
// Every error carries one clear line (what is wrong, where, what was expected) and its data as fields. Only `main`
// catches them; results that are merely incomplete (not converged, breakdown) are fields of the result, not errors.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace hesspect {

/// Exit codes of the program, the same on every rank (docs/cli.md lists them for users).
enum class ExitCode : int {
  kDone = 0,
  kUsage = 2,
  kNotConverged = 3,
  kBadInput = 4,
  kOutOfMemory = 5,
  kCommFailed = 6,
  kInternal = 70,
  kResubmit = 75,
};

/// Base of all errors that hesspect throws on purpose.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode exit_code() const { return code_; }

 private:
  ExitCode code_;
};

/// A command line or configuration that cannot be run: unknown option, missing value, contradiction.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(ExitCode::kUsage, message) {}
};

/// A file or its content that does not fit: missing, truncated, wrong shape or dtype, NaN, unsupported model.
class InputError : public Error {
 public:
  explicit InputError(const std::string& message) : Error(ExitCode::kBadInput, message) {}
};

/// A message-passing call that failed.
class CommError : public Error {
 public:
  CommError(std::string failed_call, int on_rank, const std::string& message)
      : Error(ExitCode::kCommFailed, message), call(std::move(failed_call)), rank(on_rank) {}
  std::string call;
  int rank;
};

/// A non-finite value met during the iteration. `step` counts operator products from 0; -1 where it has no meaning.
class NumericalError : public Error {
 public:
  NumericalError(std::int64_t at_step, double seen, const std::string& message)
      : Error(ExitCode::kBadInput, message), step(at_step), value(seen) {}
  std::int64_t step;
  double value;
};

/// A run that would not fit (or did not fit) in memory.
class MemoryError : public Error {
 public:
  MemoryError(std::int64_t needed, std::int64_t available, const std::string& message)
      : Error(ExitCode::kOutOfMemory, message), needed_bytes(needed), available_bytes(available) {}
  std::int64_t needed_bytes;
  std::int64_t available_bytes;
};

}  // namespace hesspect
