// The checkpoints of a training run in the file system: which there are, of which step, and whether they are whole.
//
//   for (const FoundCheckpoint& one : find_checkpoints({"run/checkpoints"}))
//     if (why_not_whole(one.path, "").empty()) ...
//
// A checkpoint is a file (.safetensors, .pt, .pth, .ckpt, .bin) or a folder with one set of weights, as trainers leave
// them: Hugging Face's checkpoint-500, Lightning's epoch=3-step=500.ckpt, model_500.pt, a folder of
// torch.distributed.checkpoint. Nothing here is executed, and
// no number of weights is read but to hash it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace hesspect {

struct FoundCheckpoint {
  std::filesystem::path path;  // as it was found
  std::string name;            // its last part, or the last two where that alone tells nothing
  std::int64_t step = -1;      // told by its name; -1: the name tells none
  double time = 0;             // of change, unix seconds: the newest of its files
};

/// The step in a name: the number behind "step" where there is one, else behind "checkpoint", "ckpt", "iter" or
/// "model", else the last number that is not an epoch's, else the epoch; -1: there is no number.
std::int64_t step_of_name(const std::string& name);

/// What a checkpoint's own result is called, without its ending: its name, without an ending of weights.
std::string result_stem(const std::string& name);

/// What the patterns name, each checkpoint once, in the order of the patterns and within one by name, numbers by value.
/// @param patterns  a pattern (* ? [ ]), a folder of checkpoints, a checkpoint, or a text file with one of these a line
///                  (relative to the list's folder; '#' begins a remark)
/// @param must_be   whether a pattern that matches nothing, or a path that is not there, is an error
/// @throws InputError: as said, or a folder that can't be listed
std::vector<FoundCheckpoint> find_checkpoints(const std::vector<std::string>& patterns, bool must_be);

/// Whether a file or folder of that name may be a checkpoint, or one on its way to its name; by the name alone, for
/// what is not there any more.
bool is_checkpoint_name(const std::string& name);

/// The patterns, with those of text files in the files' places. @throws InputError
std::vector<std::string> single_patterns(const std::vector<std::string>& patterns);

/// The folders in which new checkpoints of these patterns would appear.
std::vector<std::filesystem::path> watched_folders(const std::vector<std::string>& patterns);

/// The files that a checkpoint is made of, by name; none where it is gone.
std::vector<std::filesystem::path> files_of_checkpoint(const std::filesystem::path& path);

/// Why a checkpoint can't be read yet: a header that promises more than there is, an archive without its end, shards of
/// an index that are not there, or that their names count, files that .metadata tells more of, no weights in its
/// folder, no marker. "": it is whole, as far as that can be told.
/// @param marker  a file's name that must be there: in a checkpoint's folder, or behind its file's name
///                ("model.pt" and ".done": "model.pt.done"); "": none
std::string why_not_whole(const std::filesystem::path& path, const std::string& marker);

/// Sizes, times and inodes of its files, as text: another text means that it has been written to. "" where it is gone.
std::string fingerprint(const std::filesystem::path& path);

/// SHA-256 over its files' names and content; of a single file, that of its content. @throws InputError
std::string digest_of(const std::filesystem::path& path);

}  // namespace hesspect
