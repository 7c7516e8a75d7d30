#include "hesspect/comm/agree.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <new>

#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"

namespace hesspect {
namespace {

/// An error as a value that can be sent: its type, its fields, its message.
struct SentError {
  enum Kind : std::int64_t { kNone, kPlain, kUsage, kInput, kComm, kNumerical, kMemory };
  struct Head {
    Kind kind = kNone;
    std::int64_t first = 0;   // kPlain: ExitCode; CommError::rank, NumericalError::step, MemoryError::needed_bytes
    std::int64_t second = 0;  // MemoryError::available_bytes
    double value = 0;         // NumericalError::value
    std::size_t call_bytes = 0;
  };
  Head head = {};
  std::string message = {};
  std::string call = {};  // CommError::call

  std::string pack() const {
    if (head.kind == kNone) return {};
    return std::string(reinterpret_cast<const char*>(&head), sizeof head) + call + message;
  }

  static SentError unpack(const std::string& bytes) {
    Head head;
    std::memcpy(&head, bytes.data(), sizeof head);
    return {head, bytes.substr(sizeof head + head.call_bytes), bytes.substr(sizeof head, head.call_bytes)};
  }

  static SentError plain(ExitCode code, const std::string& message) {
    return {{kPlain, static_cast<std::int64_t>(code)}, message};
  }

  static SentError out_of_memory(const std::string& message) { return {{kMemory, -1, -1}, message}; }

  [[noreturn]] void raise() const {
    switch (head.kind) {
      case kUsage: throw UsageError(message);
      case kInput: throw InputError(message);
      case kComm: throw CommError(call, static_cast<int>(head.first), message);
      case kNumerical: throw NumericalError(head.first, head.value, message);
      case kMemory: throw MemoryError(head.first, head.second, message);
      default: throw Error(static_cast<ExitCode>(head.first), message);
    }
  }
};

SentError attempt(const std::function<void()>& step) {
  try {
    step();
    return {};
  } catch (const UsageError& error) {
    return {{SentError::kUsage}, error.what()};
  } catch (const InputError& error) {
    return {{SentError::kInput}, error.what()};
  } catch (const CommError& error) {
    return {{.kind = SentError::kComm, .first = error.rank, .call_bytes = error.call.size()}, error.what(), error.call};
  } catch (const NumericalError& error) {
    return {{.kind = SentError::kNumerical, .first = error.step, .value = error.value}, error.what()};
  } catch (const MemoryError& error) {
    return {{SentError::kMemory, error.needed_bytes, error.available_bytes}, error.what()};
  } catch (const Error& error) {
    return SentError::plain(error.exit_code(), error.what());
  } catch (const std::bad_alloc&) {
    return SentError::out_of_memory("out of memory");
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const bool allocation = dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr;
    return allocation || is_allocation_failure(error) ? SentError::out_of_memory("out of memory: " + what)
                                                      : SentError::plain(ExitCode::kInternal, what);
  } catch (const std::exception& error) {
    return SentError::plain(ExitCode::kInternal, error.what());
  } catch (...) {
    return SentError::plain(ExitCode::kInternal, "an unknown exception");
  }
}

}  // namespace

void agree(Communicator& comm, const std::function<void()>& step) {
  const SentError mine = attempt(step);
  if (!comm.any(mine.head.kind != SentError::kNone)) return;
  for (const std::string& bytes : comm.all_gather_bytes(mine.pack()))
    if (!bytes.empty()) SentError::unpack(bytes).raise();
}

}  // namespace hesspect
