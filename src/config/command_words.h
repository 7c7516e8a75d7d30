// The command lines that are read by our own loop and not by Boost's: of `run`, which hands on what stands behind its
// first word, and of the service and its queue.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "option_table.h"

namespace hesspect {

struct CommandWords {
  std::string command;                         // for messages
  bool until_first_word = false;               // what stands behind the first word is words, too
  std::map<std::string, std::string> aliases;  // beside -h: "-n" for "--ranks"
  std::string hint;                            // behind the error that there is no such option, if none is near
};

/// Sets the options. @return the words: what is no option, and all behind "--" @throws UsageError
std::vector<std::string> read_words(const CommandWords& reader, const OptionTable& table,
                                    const std::vector<std::string>& args);

}  // namespace hesspect
