// The names of a state dict as those of the program that it is laid over.
//
// Wrappers put a word before every name: on the state dict's side DataParallel, torch.compile, Lightning and
// AveragedModel, on the program's side the module that was written for the export. PEFT leaves the adapter's name out
// of its files. Such a change is made where it is uniform, and where more names fit after it.
#pragma once

#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "hesspect/model/state_dict.h"

namespace hesspect {

/// Names as they end in state dicts without being weights: counters, and index buffers that older libraries stored.
bool is_tolerated(const std::string& name);

/// The program's names, which those of a state dict are to become.
struct ProgramNames {
  std::set<std::string> all;
  std::string common;  // the dotted prefix that all weights and persistent buffers carry, "lm.model."

  explicit ProgramNames(const std::vector<OverlayTarget>& targets);
};

/// One state dict's tensors by their names in the program. Borrows the state dict.
class NamedTensors {
 public:
  NamedTensors(const StateDict& state_dict, const ProgramNames& names);

  const NameChange& change() const { return change_; }
  /// nullptr if there is none.
  const StateDictTensor* find(const std::string& program_name) const;

 private:
  NameChange change_;
  std::unordered_map<std::string, const StateDictTensor*> by_name_;
};

}  // namespace hesspect
