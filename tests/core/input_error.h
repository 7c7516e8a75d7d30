// The message of the InputError that an action ends in; a test failure where it ends otherwise.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "hesspect/core/errors.h"

namespace hesspect::test {

/// "" after recording a failure if nothing, or something else, is thrown. Checks that the message is one line.
template <class Action>
std::string input_error(Action&& action) {
  try {
    action();
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
    return message;
  } catch (const std::exception& error) {
    ADD_FAILURE() << "expected an InputError, got: " << error.what();
    return "";
  }
  ADD_FAILURE() << "expected an InputError, nothing was thrown";
  return "";
}

#define EXPECT_CONTAINS(text, part)                                                               \
  EXPECT_NE(std::string(text).find(part), std::string::npos) << "the text is: " << (text) << "\n" \
                                                             << "it should contain: " << (part)

}  // namespace hesspect::test
