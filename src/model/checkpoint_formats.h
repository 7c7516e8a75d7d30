// The formats of checkpoints, each read into the same struct; read_checkpoint tells them apart.
#pragma once

#include <filesystem>
#include <span>

#include "hesspect/core/element_type.h"
#include "hesspect/model/checkpoint.h"

namespace hesspect {

/// The zip form of torch.save.
Checkpoint read_pytorch_checkpoint(const std::filesystem::path& path);

/// A tensor that reads `numel`-checked memory it does not own. The caller has checked that all elements lie within it.
/// @param first  the element at index 0…0, aligned to the element size
at::Tensor tensor_over(const std::byte* first, ElementType type, const std::vector<std::int64_t>& sizes,
                       const std::vector<std::int64_t>& strides);

}  // namespace hesspect
