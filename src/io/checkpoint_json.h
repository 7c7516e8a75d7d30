// The states of a checkpoint as sealed JSON: one line of JSON, and one with the SHA-256 of what stands before it.
//
// Doubles come back bit for bit: in decimal where they are finite, else as the hexadecimal digits of their bits.
// Text that is not UTF-8 (JSON allows no other) and opaque bytes are hexadecimal too.
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
