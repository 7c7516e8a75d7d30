// The states of a checkpoint as sealed JSON: one line of JSON, and one with the SHA-256 of what stands before it.
#pragma once

#include <filesystem>
#include <string>

#include "hesspect/io/checkpoint.h"

namespace hesspect::checkpoint {

inline constexpr const char* kRunKind = "run";

/// A whole file's content. @param state  an object as JSON text, without the marks that this adds
std::string sealed(const std::string& state, const char* kind);
std::string sealed(const ProbeManifest& manifest);

/// What stands in a sealed file. Errors of what is then read from it lack the file's name.
/// @throws InputError naming the file: it is missing, cut short, changed, of another layout or kind
FieldReader open_sealed(const std::filesystem::path& path, const char* kind);
/// @throws InputError naming the file
ProbeManifest read_manifest(const std::filesystem::path& path);

}  // namespace hesspect::checkpoint
