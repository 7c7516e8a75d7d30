// The states of a checkpoint as sealed JSON: one line of JSON, and one with the SHA-256 of what stands before it.
// Numbers and texts stand there as json_values.h says.
#pragma once

#include <filesystem>
#include <string>

#include "hesspect/io/checkpoint.h"

namespace hesspect::checkpoint {

/// A whole file's content.
std::string sealed(const RunState& state);
std::string sealed(const ProbeManifest& manifest);

/// @throws InputError naming the file: it is missing, cut short, changed, of another layout or not what is expected
RunState read_run_state(const std::filesystem::path& path);
ProbeManifest read_manifest(const std::filesystem::path& path);

}  // namespace hesspect::checkpoint
