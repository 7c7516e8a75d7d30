// Where a rank has the model's parameters, and every vector of their length.
#pragma once

#include <string>

namespace hesspect {

enum class ParameterMemory {
  kAuto,
  kReplicated,  // every rank has them all
  kSharded,     // a rank of D has 1/D of them; those of a segment of the program are gathered when it is worked on
  kHost         // the same, a rank's share being in host memory beside a GPU
};

inline std::string to_string(ParameterMemory memory) {
  switch (memory) {
    case ParameterMemory::kAuto: return "auto";
    case ParameterMemory::kReplicated: return "replicated";
    case ParameterMemory::kSharded: return "sharded";
    case ParameterMemory::kHost: return "host";
  }
  return "";
}

}  // namespace hesspect
