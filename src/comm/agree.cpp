#include "hesspect/comm/agree.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <new>

#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"

namespace hesspect {
namespace {

/// An error as a value that can be sent: which type, its fields, its message.
struct Failure {
  enum Kind : std::int64_t { kNone, kPlain, kUsage, kInput, kComm, kNumerical, kMemory };
  std::int64_t kind = kNone;
  std::int64_t code = 0;    // ExitCode
  std::int64_t first = 0;   // CommError::rank, NumericalError::step, MemoryError::needed_bytes
  std::int64_t second = 0;  // MemoryError::available_bytes
  double value = 0;         // NumericalError::value
  std::string call;         // CommError::call
  std::string message;

  static Failure of(Kind kind, const Error& error) {
    Failure failure;
    failure.kind = kind;
    failure.code = static_cast<std::int64_t>(error.exit_code());
    failure.message = error.what();
    return failure;
  }

  std::string pack() const {
    if (kind == kNone) return {};
    const std::int64_t head[5] = {kind, code, first, second, static_cast<std::int64_t>(call.size())};
    std::string bytes(reinterpret_cast<const char*>(head), sizeof head);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    return bytes + call + message;
  }

  static Failure unpack(const std::string& bytes) {
    std::int64_t head[5];
    Failure failure;
    std::memcpy(head, bytes.data(), sizeof head);
    std::memcpy(&failure.value, bytes.data() + sizeof head, sizeof failure.value);
    failure.kind = head[0];
    failure.code = head[1];
    failure.first = head[2];
    failure.second = head[3];
    const std::string texts = bytes.substr(sizeof head + sizeof failure.value);
    failure.call = texts.substr(0, static_cast<std::size_t>(head[4]));
    failure.message = texts.substr(static_cast<std::size_t>(head[4]));
    return failure;
  }

  [[noreturn]] void raise() const {
    switch (kind) {
      case kUsage: throw UsageError(message);
      case kInput: throw InputError(message);
      case kComm: throw CommError(call, static_cast<int>(first), message);
      case kNumerical: throw NumericalError(first, value, message);
      case kMemory: throw MemoryError(first, second, message);
      default: throw Error(static_cast<ExitCode>(code), message);
    }
  }
};

Failure attempt(const std::function<void()>& step) {
  try {
    step();
    return {};
  } catch (const UsageError& error) {
    return Failure::of(Failure::kUsage, error);
  } catch (const InputError& error) {
    return Failure::of(Failure::kInput, error);
  } catch (const CommError& error) {
    Failure failure = Failure::of(Failure::kComm, error);
    failure.call = error.call;
    failure.first = error.rank;
    return failure;
  } catch (const NumericalError& error) {
    Failure failure = Failure::of(Failure::kNumerical, error);
    failure.first = error.step;
    failure.value = error.value;
    return failure;
  } catch (const MemoryError& error) {
    Failure failure = Failure::of(Failure::kMemory, error);
    failure.first = error.needed_bytes;
    failure.second = error.available_bytes;
    return failure;
  } catch (const Error& error) {
    return Failure::of(Failure::kPlain, error);
  } catch (const std::bad_alloc&) {
    Failure failure = Failure::of(Failure::kMemory, MemoryError(-1, -1, "out of memory"));
    failure.first = failure.second = -1;
    return failure;
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    if (dynamic_cast<const c10::OutOfMemoryError*>(&error) == nullptr && !is_allocation_failure(error))
      return Failure::of(Failure::kPlain, Error(ExitCode::kInternal, what));
    Failure failure = Failure::of(Failure::kMemory, MemoryError(-1, -1, "out of memory: " + what));
    failure.first = failure.second = -1;
    return failure;
  } catch (const std::exception& error) {
    return Failure::of(Failure::kPlain, Error(ExitCode::kInternal, error.what()));
  } catch (...) {
    return Failure::of(Failure::kPlain, Error(ExitCode::kInternal, "an unknown exception"));
  }
}

}  // namespace

void agree(Communicator& comm, const std::function<void()>& step) {
  const Failure mine = attempt(step);
  double failed[1] = {mine.kind == Failure::kNone ? 0.0 : 1.0};
  comm.all_reduce_sum(std::span<double>(failed));
  if (failed[0] == 0) return;
  for (const std::string& bytes : comm.all_gather_bytes(mine.pack()))
    if (!bytes.empty()) Failure::unpack(bytes).raise();
}

std::string from_rank0(Communicator& comm, const std::string& text) {
  return comm.all_gather_bytes(comm.rank() == 0 ? text : std::string()).front();
}

}  // namespace hesspect
