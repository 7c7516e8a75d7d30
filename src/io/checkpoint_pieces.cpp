#include "checkpoint_pieces.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "checkpoint_names.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/vector_cut.h"
#include "temporary_file.h"

namespace hesspect::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostEntries = std::int64_t{1} << 48;  // so that no product of sizes overflows
constexpr std::int64_t kMostRows = std::int64_t{1} << 31;
constexpr std::size_t kNameDigits = 16;  // of the SHA-256

/// How a manifest's vectors are cut: set by set, or in equal chunks, which is one set. @throws InputError for no cut
VectorCut cut_of(const ProbeManifest& m) {
  if (m.cut.empty()) {
    VectorCut cut(m.ranks);
    cut.add({{0, m.n}});
    return cut;
  }
  std::optional<VectorCut> cut = VectorCut::from_numbers(m.cut, m.n);
  if (!cut || cut->ranks() != m.ranks) throw InputError("its vectors are cut in a way that can't be");
  return *std::move(cut);
}

std::int64_t element_bytes(const ProbeManifest& m, const std::string& set) {
  return set == "basis" ? m.basis_element_bytes : m.running_element_bytes;
}

std::string piece_name(const std::string& stem, const std::string& sha256) {
  return stem + "." + sha256.substr(0, kNameDigits);
}

bool is_element_size(std::int64_t bytes) { return bytes == 2 || bytes == 4 || bytes == 8; }

/// Its rows, checked against the recorded SHA-256 once.
MappedFile open_piece(const fs::path& folder, const Piece& piece, std::set<std::string>& verified) {
  const fs::path path = folder / piece.file;
  MappedFile file(path);
  const auto bytes = file.bytes();
  if (static_cast<std::int64_t>(bytes.size()) != piece.bytes)
    throw InputError("checkpoint piece " + named(path) + " has " + std::to_string(bytes.size()) + " bytes, not " +
                     std::to_string(piece.bytes) + ": it was cut short or changed");
  const std::string key = path.string() + " " + piece.sha256;
  if (verified.contains(key)) return file;
  if (sha256_bytes(bytes.data(), bytes.size()) != piece.sha256)
    throw InputError("checkpoint piece " + named(path) + " was changed since it was written (its SHA-256 is wrong)");
  verified.insert(key);
  return file;
}

}  // namespace

std::string inconsistency(const ProbeManifest& m) {
  if (m.probe < 0 || m.steps < 0) return "its probe or number of steps is negative";
  if (m.n < 1 || m.n > kMostEntries || m.ranks < 1) return "its vectors' length or number of ranks is out of range";
  if (!m.cut.empty()) {
    const std::optional<VectorCut> cut = VectorCut::from_numbers(m.cut, m.n);
    if (!cut || cut->ranks() != m.ranks) return "its vectors are cut in a way that can't be";
  }
  const std::int64_t chunk = cut_of(m).chunk();
  if (!is_element_size(m.basis_element_bytes) || !is_element_size(m.running_element_bytes))
    return "its numbers have an impossible size";
  for (const Piece& p : m.pieces) {
    const std::string what = "piece '" + p.file + "'";
    if (p.set != "basis" && p.set != "running") return what + " is of no known set";
    if (p.first_row < 0 || p.rows < 1 || p.first_row > kMostRows || p.rows > kMostRows || p.rank >= m.ranks)
      return what + " has rows or a rank out of range";
    if (p.file != piece_name(piece_stem(p.set, p.first_row, p.rows, p.rank, m.ranks), p.sha256) || !is_piece(p.file))
      return what + " has another name than its content says";
    const std::int64_t row_bytes = chunk * element_bytes(m, p.set);
    if (p.bytes % row_bytes != 0 || p.bytes / row_bytes != p.rows)
      return what + " has " + std::to_string(p.bytes) + " bytes, not " + std::to_string(p.rows) + " rows of " +
             std::to_string(row_bytes);
  }
  return "";
}

std::string fault(const fs::path& folder, const Piece& piece) {
  std::error_code error;
  const auto bytes = fs::file_size(folder / piece.file, error);
  if (error) return error.message();
  if (bytes == static_cast<std::uintmax_t>(piece.bytes)) return "";
  return std::to_string(bytes) + " bytes, not " + std::to_string(piece.bytes);
}

Piece write_piece(const fs::path& folder, const std::string& set, std::int64_t first_row,
                  std::span<const std::span<const std::byte>> rows, int rank, int ranks) {
  Piece piece{set, first_row, static_cast<std::int64_t>(rows.size()), rank, "", 0, ""};
  const std::string stem = piece_stem(set, first_row, piece.rows, rank, ranks);
  TemporaryFile file(folder / stem);
  Sha256Stream sha256;
  for (const auto row : rows) {
    file.write(row);
    sha256.update(row);
    piece.bytes += static_cast<std::int64_t>(row.size());
  }
  file.sync_and_close();
  piece.sha256 = sha256.digest();
  piece.file = piece_name(stem, piece.sha256);
  file.rename(folder / piece.file);
  return piece;
}

std::vector<std::byte> read_rows(const fs::path& folder, const ProbeManifest& m, const std::string& set,
                                 std::int64_t first_row, std::int64_t rows, std::int64_t begin, std::int64_t end,
                                 std::set<std::string>& verified) {
  const VectorCut cut = cut_of(m);
  const std::int64_t size = element_bytes(m, set), chunk = cut.chunk();
  std::vector<std::byte> out(static_cast<std::size_t>(rows * (end - begin) * size));
  const std::int64_t stop = std::min(end, m.n);  // what pieces hold beyond n is padding
  struct Stretch {
    std::int64_t local, from, to;
  };
  for (int rank = 0; rank < m.ranks && begin < stop; ++rank) {
    std::vector<Stretch> stretches;  // that are wanted of this rank's
    cut.for_each(rank, [&](std::int64_t local, std::int64_t first, std::int64_t count) {
      const std::int64_t from = std::max(begin, first), to = std::min(stop, first + count);
      if (from < to) stretches.push_back({local + (from - first), from, to});
    });
    if (stretches.empty()) continue;
    std::vector<bool> found(static_cast<std::size_t>(rows));
    for (const Piece& piece : m.pieces) {
      const std::int64_t low = std::max(first_row, piece.first_row);
      const std::int64_t high = std::min(first_row + rows, piece.first_row + piece.rows);
      if (piece.set != set || piece.rank != rank || low >= high) continue;
      const MappedFile file = open_piece(folder, piece, verified);
      for (std::int64_t row = low; row < high; ++row) {
        const std::byte* source = file.bytes().data() + (row - piece.first_row) * chunk * size;
        for (const Stretch& one : stretches)
          std::memcpy(out.data() + ((row - first_row) * (end - begin) + (one.from - begin)) * size,
                      source + one.local * size, static_cast<std::size_t>((one.to - one.from) * size));
        found[static_cast<std::size_t>(row - first_row)] = true;
      }
    }
    const auto gap = std::find(found.begin(), found.end(), false);
    if (gap != found.end())
      throw InputError("the checkpoint in " + named(folder) + " lacks row " +
                       std::to_string(first_row + (gap - found.begin())) + " of the " + set + " of rank " +
                       std::to_string(rank) + ": " + manifest_name(m.steps) + " names no piece of it");
  }
  return out;
}

}  // namespace hesspect::checkpoint
