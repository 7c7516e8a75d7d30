// Shards whose every entry is known by its place, and checkpoints made of them.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "hesspect/io/checkpoint.h"

namespace hesspect {

inline double entry(std::int64_t row, std::int64_t index) {
  return static_cast<double>(row) * 1e6 + static_cast<double>(index) + 0.5;
}

/// Rows of one rank, entries of 8 bytes; what is beyond n holds rubbish, which no reader may see.
inline std::vector<std::vector<double>> shard_rows(std::int64_t n, int ranks, int rank, std::int64_t first,
                                                   std::int64_t rows) {
  const std::int64_t chunk = (n + ranks - 1) / ranks;
  std::vector<std::vector<double>> all;
  for (std::int64_t row = first; row < first + rows; ++row) {
    std::vector<double>& values = all.emplace_back();
    for (std::int64_t i = rank * chunk; i < (rank + 1) * chunk; ++i) values.push_back(i < n ? entry(row, i) : -777.0);
  }
  return all;
}

inline std::vector<std::span<const std::byte>> bytes_of(const std::vector<std::vector<double>>& rows) {
  std::vector<std::span<const std::byte>> all;
  for (const auto& row : rows) all.push_back(std::as_bytes(std::span(row)));
  return all;
}

/// What a group does at a checkpoint after `steps` steps: adds the rows since the manifest, of all ranks, and commits.
inline void add_generation(CheckpointFolder& folder, ProbeManifest& m, std::int64_t steps) {
  std::int64_t have = 0;
  std::erase_if(m.pieces, [](const Piece& piece) { return piece.set == "running"; });
  for (const Piece& piece : m.pieces) have = std::max(have, piece.first_row + piece.rows);
  for (int rank = 0; rank < m.ranks; ++rank) {
    const auto basis = shard_rows(m.n, m.ranks, rank, have, steps + 1 - have);
    m.pieces.push_back(folder.write_piece(m.probe, "basis", have, bytes_of(basis), rank, m.ranks));
    auto running = shard_rows(m.n, m.ranks, rank, steps, 2);
    m.pieces.push_back(folder.write_piece(m.probe, "running", 0, bytes_of(running), rank, m.ranks));
  }
  m.steps = steps;
  m.state = "after " + std::to_string(steps);
  folder.commit(m);
}

inline ProbeManifest new_manifest(std::int64_t n, int ranks, std::int64_t probe = 3) {
  ProbeManifest m;
  m.run_id = "5eed";
  m.probe = probe;
  m.n = n;
  m.ranks = ranks;
  m.basis_element_bytes = m.running_element_bytes = 8;
  return m;
}

inline std::vector<double> read_doubles(const CheckpointFolder& folder, const ProbeManifest& m, const std::string& set,
                                        std::int64_t first, std::int64_t rows, std::int64_t begin, std::int64_t end) {
  const auto bytes = folder.read_rows(m, set, first, rows, begin, end);
  std::vector<double> values(bytes.size() / sizeof(double));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

/// Whether all rows of a manifest are what they should be, cut for another number of ranks.
inline bool rows_are_right(const CheckpointFolder& folder, const ProbeManifest& m, int ranks) {
  const std::int64_t chunk = (m.n + ranks - 1) / ranks;
  const auto expected = [&](std::int64_t first, std::int64_t rows, std::int64_t begin) {
    std::vector<double> values;
    for (std::int64_t row = first; row < first + rows; ++row)
      for (std::int64_t i = begin; i < begin + chunk; ++i) values.push_back(i < m.n ? entry(row, i) : 0);
    return values;
  };
  for (int rank = 0; rank < ranks; ++rank) {
    const std::int64_t begin = rank * chunk;
    if (read_doubles(folder, m, "basis", 0, m.steps + 1, begin, begin + chunk) != expected(0, m.steps + 1, begin) ||
        read_doubles(folder, m, "running", 0, 2, begin, begin + chunk) != expected(m.steps, 2, begin))
      return false;
  }
  return true;
}

}  // namespace hesspect
