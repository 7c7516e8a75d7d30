// Checkpoints: tensors by name, from safetensors (one file or a sharded index) or a PyTorch state dict.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/model/parameter_layout.h"

namespace hesspect {

struct CheckpointTensor {
  std::string name;
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;
  at::Tensor tensor;  // CPU, may be a view into mapped memory; any strides
};

/// A checkpoint read whole or mapped. Nothing in it is ever executed.
struct Checkpoint {
  std::string format;                        // "safetensors", "PyTorch state dict", or either with " index" for shards
  std::string key;                           // where the state dict lay: "", "model", "state_dict"…
  std::vector<std::filesystem::path> files;  // every file that was read
  std::vector<CheckpointTensor> tensors;     // in file order
  std::vector<std::string> skipped;  // what is not of the state dict (optimizer, epoch…) or no tensor, by name
  std::shared_ptr<void> storage;     // keeps mappings alive
};

/// Reads a checkpoint; the format is told by content. PyTorch archives (zip form) are read by a whitelist unpickler:
/// dicts, lists, tuples, numbers, strings, OrderedDict, torch._utils._rebuild_tensor_v2, _rebuild_parameter, torch
/// storages, torch.Size/dtype. A state dict may lie at the top or under a key such as `model`, `state_dict`,
/// `model_state_dict`, `module`, `net`. A common `module.` or `_orig_mod.` prefix is kept here (see overlay).
/// @throws InputError: no file, a directory, truncated, offsets out of range, a pickle that names anything else
///         (the message gives the global's name), the legacy (non-zip) form with advice to re-save
Checkpoint read_checkpoint(const std::filesystem::path& path);

/// What laying a checkpoint over a program changed.
struct OverlayReport {
  std::vector<std::string> widened;  // names stored as bf16 or fp16 and widened to float32 (or float64)
  std::vector<std::string>
      narrowed;                 // names whose stored type is wider than the program's (float64 to float32): rounded
  std::string stripped_prefix;  // "module." where the checkpoint's names all carried it and the program's do not
  std::vector<std::string> ignored;  // non-parameter, non-buffer names that were tolerated (num_batches_tracked)
};

/// A tensor the checkpoint may set: a parameter's view into the flat vector, or a buffer.
struct OverlayTarget {
  std::string name;
  std::vector<std::string> aliases;
  at::Tensor tensor;         // written in place, converted to its dtype
  bool required = true;      // parameters and persistent buffers
  bool is_parameter = true;  // a buffer may hold infinities (attention masks), a parameter may not
};

/// Copies every target from the checkpoint by name or alias. All problems are found before anything is written.
/// A wrapper's prefix (`module.`, `_orig_mod.`, `model.`, or several) that all names carry is dropped where more names
/// fit without it. Counters `num_batches_tracked` and stored `position_ids` may be missing or extra.
/// @throws InputError listing missing, extra and misshapen names (shapes shown), or the first tensor with NaN/inf, or
///         names of one tied weight whose values differ
OverlayReport overlay(const Checkpoint& checkpoint, const std::vector<OverlayTarget>& targets);

}  // namespace hesspect
