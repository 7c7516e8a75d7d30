// The formats of state dicts, each read into the same struct; read_state_dict tells them apart.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "hesspect/core/element_type.h"
#include "hesspect/core/unpickle.h"
#include "hesspect/model/state_dict.h"

namespace hesspect {

/// The zip form of torch.save.
/// @param key  where the state dict lies, dotted; "": at the top or under a key that training scripts use
StateDict read_pytorch_state_dict(const std::filesystem::path& path, const std::string& key);

/// A folder of torch.distributed.checkpoint, with its `.metadata`. Tensors in several parts are copied together.
StateDict read_distributed_state_dict(const std::filesystem::path& folder, const std::string& key);

/// The state dict among what else was saved, and in `state_dict` the way there and what lies beside it.
/// @param key  where it lies, dotted; "": at the top or under keys that training scripts use
/// @throws InputError where there is none, or it is not clear which
const pickle::Value& find_state_dict(const pickle::Value& root, const std::string& file, const std::string& key,
                                     StateDict& state_dict);

/// What `--weights DIR` means: one index or file of weights, or the shards of one set in order.
/// @throws InputError listing what is there, where that is none or several
std::vector<std::filesystem::path> weights_in_folder(const std::filesystem::path& folder);

/// A tensor that reads `numel`-checked memory it does not own. The caller has checked that all elements lie within it.
/// @param first  the element at index 0…0, aligned to the element size
at::Tensor tensor_over(const std::byte* first, ElementType type, const std::vector<std::int64_t>& sizes,
                       const std::vector<std::int64_t>& strides);

}  // namespace hesspect
