// The metadata of a checkpoint of torch.distributed.checkpoint: which tensors its files hold, and where.
//
// Such a checkpoint is a folder of .distcp files, one or more for each rank that saved, and `.metadata`, a pickle that
// says where each part of each tensor lies. PyTorch writes that last, when all others are on disk. Nothing in it is
// executed. Limits: parts as torch.save writes them (the default), uncompressed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hesspect {

/// A part of a tensor, and the bytes of a file in which torch.save has put it.
struct DistributedPart {
  std::vector<std::int64_t> offsets, sizes;
  std::string file;  // relative to the folder, within it
  std::uint64_t begin = 0, length = 0;
};

struct DistributedTensor {
  std::string name;               // flattened: "model.layer.weight"
  std::vector<std::string> path;  // the keys that led to it: "model", "layer.weight"; the name where none are told
  std::string dtype;              // PyTorch's name: "float32"
  std::vector<std::int64_t> sizes;
  std::vector<DistributedPart> parts;  // cover it, each entry once
};

struct DistributedCheckpoint {
  std::vector<DistributedTensor> tensors;
  std::vector<std::string> others;             // names of what is no tensor
  std::map<std::string, std::uint64_t> files;  // that it needs, and the bytes that each has at least
};

/// The folder in which such a checkpoint lies: the given one, or the one below that a Hugging Face trainer with FSDP
/// leaves beside no weights of another form; nothing where there is none. Also of one that is still being written.
std::optional<std::filesystem::path> distributed_folder(const std::filesystem::path& folder);

/// @param bytes  of `.metadata`
/// @param file   its quoted name, for messages
/// @throws InputError: broken, parts that don't cover a tensor, a file outside the folder, a form that is not read
DistributedCheckpoint distributed_metadata(std::span<const std::byte> bytes, const std::string& file);

/// @param folder  of distributed_folder
/// @throws InputError also where there is no `.metadata`: it was not written to its end
DistributedCheckpoint read_distributed_metadata(const std::filesystem::path& folder);

}  // namespace hesspect
