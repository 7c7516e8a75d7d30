// Pieces: rows of the shards of one rank, as plain files of numbers, row after row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "hesspect/io/checkpoint.h"

namespace hesspect::checkpoint {

/// What in a manifest contradicts itself, or "": sizes, ranks, names that are not pieces' own.
std::string inconsistency(const ProbeManifest& manifest);

/// Why a piece cannot be used, or "": it is missing, or has another size. Its content is not looked at.
std::string fault(const std::filesystem::path& probe_folder, const Piece& piece);

/// Writes a piece, row by row: no copy of the rows is made.
Piece write_piece(const std::filesystem::path& probe_folder, const std::string& set, std::int64_t first_row,
                  std::span<const std::span<const std::byte>> rows, int rank, int ranks);

/// CheckpointFolder::read_rows. @param verified  files whose SHA-256 was found right; grows
std::vector<std::byte> read_rows(const std::filesystem::path& probe_folder, const ProbeManifest& manifest,
                                 const std::string& set, std::int64_t first_row, std::int64_t rows, std::int64_t begin,
                                 std::int64_t end, std::set<std::string>& verified);

}  // namespace hesspect::checkpoint
