// What the fuzz targets share: the input as a file, and what a reader may end in.
//
// A reader may accept its input or throw one of hesspect's own errors with a message of one line. Anything else ends
// the process, which libFuzzer reports with the input: another exception, a signal, a sanitizer's finding, a hang,
// memory beyond the limits that tests/fuzz/run_fuzz.py sets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

#include "hesspect/core/errors.h"
#include "input_files.h"

namespace hesspect::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Ends the process where a property that must hold does not.
inline void require(bool holds, std::string_view what) {
  if (holds) return;
  std::cerr << "fuzz: " << what << "\n";
  std::abort();
}

/// Runs a reader on the input. @return whether it accepted it
template <class Action>
bool reads(Action&& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    require(std::string_view(error.what()).find('\n') == std::string_view::npos,
            std::string("a message of more than one line: ") + error.what());
    require(error.exit_code() != ExitCode::kInternal, std::string("an internal error: ") + error.what());
    return false;
  }
}

}  // namespace hesspect::fuzz
