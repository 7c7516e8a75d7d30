// Checkpoints of a run: what is finished, and the Krylov vectors of what is not.
//
//   FOLDER/lock                                       held (flock) by rank 0 of the run that writes here
//   FOLDER/run-000007.json                            the run's state: two generations kept
//   FOLDER/probe-000003/steps-000040.json             ProbeManifest: two generations kept; it makes its pieces count
//   FOLDER/probe-000003/basis-000000-000041.rank-0002-of-0004.<16 digits of its SHA-256>   a piece
//
// Every file is written to a temporary name, synced and renamed. A piece is never changed: a Krylov basis only grows,
// so each checkpoint adds the rows since the last one. JSON files end in a line with the SHA-256 of what stands before
// it. Nothing here communicates: ranks write their own pieces, then one of them commits the manifest. What the run's
// state holds is the run's own affair: whatever names its fields (fields.h), a `run_id` among them, is written and
// read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hesspect/io/fields.h"

namespace hesspect {

/// Rows [first_row, first_row + rows) of one rank's shards, as one file.
struct Piece {
  std::string set;  // "basis", or "running" for the vectors that are kept at full precision besides
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  int rank = 0;      // in its group
  std::string file;  // name in the probe's folder
  std::int64_t bytes = 0;
  std::string sha256;
};

/// As text for messages, and back. @throws InputError for text that is none
std::string to_text(const Piece& piece);
Piece piece_from(const std::string& text);

/// One generation of one probe's run.
struct ProbeManifest {
  std::string run_id;
  std::int64_t probe = 0;
  std::int64_t steps = 0;
  std::string state;   // the scalars, opaque bytes
  std::int64_t n = 0;  // global length of a vector
  int ranks = 1;       // that share it, in equal chunks of ceil(n / ranks) entries, the tail padded, or as `cut` says
  std::int64_t basis_element_bytes = 4;
  std::int64_t running_element_bytes = 4;
  /// How vectors are cut set by set, VectorCut::numbers(); none: in equal chunks.
  std::vector<std::int64_t> cut = {};
  std::vector<Piece> pieces;
};

/// The folder, opened by each rank.
class CheckpointFolder {
 public:
  /// Nothing is touched yet.
  explicit CheckpointFolder(std::filesystem::path folder);
  ~CheckpointFolder();
  CheckpointFolder(CheckpointFolder&&) noexcept;
  CheckpointFolder& operator=(CheckpointFolder&&) noexcept;
  const std::filesystem::path& path() const;

  // --- rank 0 ---

  /// True where there is a run state, whole or not. @throws InputError where the folder is none or cannot be read
  bool exists() const;
  /// Makes the folder and takes its lock, held until this object goes; removes what killed runs left behind: temporary
  /// files, probes without a manifest, and all probes where there is no run state. Before other ranks write.
  /// @throws UsageError where another running process holds the lock; InputError where it cannot be made
  void lock();
  /// Removes what earlier runs left here; the lock stays.
  void clear();
  /// Writes the next generation and removes all but the last two.
  /// @throws InputError if it cannot be written; the earlier generations are as they were
  template <class State>
  void write_run(const State& state) {
    write_run_text(FieldWriter::text(state), state.run_id);
  }
  /// The newest whole generation. @param warnings  says which were passed over, and why
  /// @throws InputError where there are generations but none is whole (naming the folder and the first fault)
  template <class State>
  std::optional<State> read_run(std::vector<std::string>& warnings) const {
    std::optional<State> state;
    read_newest_run([&state](const FieldReader& reader) { state = reader.as<State>(); }, warnings);
    return state;
  }
  /// Whole manifests of a probe that belong to `run_id`, newest first: the manifest's own SHA-256 is right, and every
  /// piece is there with its size (contents are checked when read).
  std::vector<ProbeManifest> manifests(std::int64_t probe, const std::string& run_id) const;
  /// Probes that have any manifest of this run, its pieces there or not, ascending.
  std::vector<std::int64_t> probes(const std::string& run_id) const;
  /// Of a probe that is done. What cannot be removed stays for remove().
  void remove_probe(std::int64_t probe);
  /// Removes the whole folder (files that are hesspect's own only; the folder stays where something else is in it) and
  /// gives up the lock.
  /// @throws InputError naming the first file that could not be removed; the others are gone
  void remove();

  // --- ranks of a probe's group ---

  /// Writes rows of this rank's shards. @param rows  one or more; each row's bytes: a local vector's entries
  /// @throws InputError if it cannot be written; nothing is left behind
  Piece write_piece(std::int64_t probe, const std::string& set, std::int64_t first_row,
                    std::span<const std::span<const std::byte>> rows, int rank, int ranks);
  /// By one rank, when all pieces are written, and while no rank writes more of this probe: the generation counts from
  /// here on. Removes all generations but this and the whole one before it, and pieces that neither names.
  /// @throws InputError if it cannot be written, or if a piece is not visible here (a folder that the hosts don't
  /// share)
  void commit(const ProbeManifest& manifest);
  /// Entries [begin, end) of rows [first_row, first_row + rows) of a set, whatever the number of ranks that wrote them.
  /// Padding beyond n is zero. @return [rows][end - begin] entries
  /// @throws InputError naming the piece whose SHA-256 is wrong, or that is missing
  std::vector<std::byte> read_rows(const ProbeManifest& manifest, const std::string& set, std::int64_t first_row,
                                   std::int64_t rows, std::int64_t begin, std::int64_t end) const;

 private:
  void write_run_text(const std::string& state, const std::string& run_id);
  void read_newest_run(const std::function<void(const FieldReader&)>& read, std::vector<std::string>& warnings) const;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
