// State dicts: tensors by name, from safetensors (one file or a sharded index) or a PyTorch state dict.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "hesspect/model/parameter_layout.h"

namespace hesspect {

struct StateDictTensor {
  std::string name;
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;
  at::Tensor tensor;  // CPU, may be a view into mapped memory; any strides
};

/// A state dict read whole or mapped. Nothing in it is ever executed.
struct StateDict {
  /// "safetensors", "PyTorch state dict", either with " index" for shards, or "torch.distributed.checkpoint".
  std::string format;
  std::string key;                           // where the state dict lay: "", "model", "state_dict"…
  std::vector<std::filesystem::path> files;  // every file that was read
  std::vector<StateDictTensor> tensors;      // in file order
  std::vector<std::string> skipped;     // what is not of the state dict (optimizer, epoch…) or no tensor, by name
  std::vector<std::string> other_sets;  // those of them that hold tensors by name, as a state dict does
  std::vector<std::pair<std::string, std::string>> objects;  // entries that are no tensors: name, and what makes them
  std::shared_ptr<void> storage;                             // keeps mappings alive
};

/// Reads a state dict; the format is told by content. PyTorch archives (zip form) are read by an unpickler that knows
/// dicts, lists, tuples, numbers, strings, OrderedDict, torch._utils._rebuild_tensor_v2, _rebuild_parameter, torch
/// storages, torch.Size/dtype; what any other global makes is an inert placeholder. A state dict may lie at the top or
/// under a key such as `model`, `state_dict`, `model_state_dict`, `module`, `net`. Prefixes are kept (see overlay).
/// @param path  a file, or a folder with one index, one file, one set of shards, or of torch.distributed.checkpoint
/// @param key   where the state dict lies in a PyTorch archive, dotted; "": as above
/// @throws InputError: no file, a folder of none or several, truncated, offsets out of range, a tensor of the state
///         dict that an unknown global makes (naming both), the legacy (non-zip) form with advice to re-save
StateDict read_state_dict(const std::filesystem::path& path, const std::string& key = "");

/// How a state dict's names became the program's.
struct NameChange {
  std::string stripped;  // "module." where the state dict's names all carried it and the program's do not
  std::string added;     // "lm." where the program's names all carry it and the state dict's do not
  std::string adapter;   // "default": PEFT's name of an adapter, which its files leave out
  bool base = false;     // the weights below an adapter: PEFT's `base_layer`, which their files don't know
  bool operator==(const NameChange&) const = default;
};

/// "'module.' taken off its names, 'lm.' put before them"; "" where nothing changed.
std::string describe(const NameChange& change);

/// What laying state dicts over a program changed.
struct OverlayReport {
  std::vector<std::string> widened;      // names stored as bf16 or fp16 and widened to float32 (or float64)
  std::vector<NameChange> changes;       // one for each state dict
  std::vector<std::string> ignored;      // names that were tolerated (num_batches_tracked, n_averaged)
  std::vector<std::string> not_covered;  // with `partial`: what no state dict holds and was left as it was
  std::vector<std::string> warnings;     // what could not be decided for sure, a sentence each
};

/// A tensor the state dict may set: a parameter's view into the flat vector, or a buffer.
struct OverlayTarget {
  std::string name;
  std::vector<std::string> aliases;
  at::Tensor tensor;         // written in place, converted to its dtype
  bool required = true;      // parameters and persistent buffers
  bool is_parameter = true;  // a buffer may hold infinities (attention masks), a parameter may not
  bool is_saved = true;      // a state dict has it; constants and non-persistent buffers it has not
  /// Where given, gets the state dict's own tensor, and `tensor`, on the meta device, is not written.
  at::Tensor* kept = nullptr;
  bool is_read_now = true;  // false: values are not checked
};

/// Copies every target from the last state dict that has it by name or alias. All problems are found before anything is
/// written. A prefix that all names of one side carry is dropped or put before the other's where more names fit so.
/// Counters `num_batches_tracked`, `n_averaged` and stored `position_ids` may be missing or extra.
/// @param partial  targets that no state dict has keep what they hold, and are listed
/// @throws InputError listing missing (not if partial), extra and misshapen names (shapes shown), a state dict that has
///         none of the names, the first tensor with NaN/inf, or names of one tied weight whose values differ
OverlayReport overlay(std::span<const StateDict> state_dicts, const std::vector<OverlayTarget>& targets,
                      bool partial = false);
inline OverlayReport overlay(const StateDict& state_dict, const std::vector<OverlayTarget>& targets) {
  return overlay(std::span(&state_dict, 1), targets);
}

}  // namespace hesspect
