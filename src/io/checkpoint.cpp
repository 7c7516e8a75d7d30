#include "hesspect/io/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "checkpoint_names.h"
#include "checkpoint_pieces.h"
#include "checkpoint_text.h"
#include "folder_lock.h"
#include "hesspect/core/errors.h"
#include "hesspect/io/atomic_file.h"
#include "temporary_file.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;
using namespace checkpoint;

constexpr int kGenerations = 2;  // kept, of the run's state and of each probe

void write_text(const fs::path& path, const std::string& text) {
  write_file_atomically(path, std::as_bytes(std::span(text)));
}

/// What is superseded and cannot be removed does no harm: a later pruning, or remove(), tries again.
void remove_quietly(const fs::path& path) { ::unlink(path.c_str()); }

bool is_own_in_probe(const std::string& name) { return manifest_steps(name) || is_piece(name) || is_temporary(name); }

/// A probe's manifests come first: pieces without a manifest are nothing, a manifest without pieces is a broken one.
/// @return the first failure, or nothing
std::optional<std::string> remove_probe_folder(const fs::path& folder) {
  std::optional<std::string> failure;
  const auto remove = [&](const std::string& name) {
    if (::unlink((folder / name).c_str()) != 0 && errno != ENOENT && !failure)
      failure = "cannot remove " + named(folder / name) + ": " + std::strerror(errno);
  };
  const auto names = names_in(folder);
  for (const auto& name : names)
    if (manifest_steps(name)) remove(name);
  for (const auto& name : names)
    if (!manifest_steps(name) && is_own_in_probe(name)) remove(name);
  ::rmdir(folder.c_str());  // stays where something else is in it
  return failure;
}

/// Nothing where it is broken or another run's.
std::optional<ProbeManifest> manifest_of(const fs::path& path, std::int64_t probe, const std::string& run_id) {
  try {
    ProbeManifest manifest = read_manifest(path);
    if (manifest.run_id == run_id && manifest.probe == probe) return manifest;
  } catch (const InputError&) {
  }
  return std::nullopt;
}

bool has_all_pieces(const fs::path& folder, const ProbeManifest& manifest) {
  return std::all_of(manifest.pieces.begin(), manifest.pieces.end(),
                     [&](const Piece& piece) { return fault(folder, piece).empty(); });
}

/// All that pruning needs to know of a run's state.
struct RunName {
  std::string run_id;
};

void fields(auto& v, Is<RunName> auto& name) { v("run_id", name.run_id); }

bool is_run_of(const fs::path& path, const std::string& run_id) {
  try {
    return open_sealed(path, kRunKind).as<RunName>().run_id == run_id;
  } catch (const InputError&) {
    return false;
  }
}

}  // namespace

struct CheckpointFolder::Impl {
  fs::path folder;
  std::optional<FolderLock> lock;
  std::set<std::string> verified;  // pieces, by read_rows

  fs::path probe_folder(std::int64_t probe) const { return folder / probe_name(probe); }
  /// Numbers of the probes' folders, ascending. What has such a name and is none is somebody else's.
  std::vector<std::int64_t> probes() const;
  void remove_left_overs() const;
};

std::vector<std::int64_t> CheckpointFolder::Impl::probes() const {
  auto numbers = numbers_in(folder, probe_number);
  std::erase_if(numbers, [&](std::int64_t probe) {
    std::error_code error;
    return !fs::is_directory(fs::symlink_status(probe_folder(probe), error));
  });
  return numbers;
}

/// Of runs that were killed: the lock is held, so that no other run writes here. Probes count through the run state,
/// and pieces through a manifest; without it they are left-overs as well.
void CheckpointFolder::Impl::remove_left_overs() const {
  const auto clean = [](const fs::path& where) {
    for (const auto& name : names_in(where))
      if (is_temporary(name)) remove_quietly(where / name);
  };
  clean(folder);
  const bool has_run = !numbers_in(folder, run_generation).empty();
  for (const std::int64_t probe : probes()) {
    const fs::path where = probe_folder(probe);
    if (!has_run || numbers_in(where, manifest_steps).empty())
      remove_probe_folder(where);
    else
      clean(where);
  }
}

CheckpointFolder::CheckpointFolder(fs::path folder) : impl_(std::make_unique<Impl>()) {
  impl_->folder = folder.has_filename() ? std::move(folder) : folder.parent_path();
}
CheckpointFolder::~CheckpointFolder() = default;
CheckpointFolder::CheckpointFolder(CheckpointFolder&&) noexcept = default;
CheckpointFolder& CheckpointFolder::operator=(CheckpointFolder&&) noexcept = default;
const fs::path& CheckpointFolder::path() const { return impl_->folder; }

bool CheckpointFolder::exists() const { return !numbers_in(path(), run_generation).empty(); }

void CheckpointFolder::lock() {
  if (impl_->lock) return;
  make_folders(path());
  impl_->lock.emplace(path(), kLock);
  impl_->remove_left_overs();
}

void CheckpointFolder::write_run_text(const std::string& state, const std::string& run_id) {
  const auto earlier = numbers_in(path(), run_generation);
  make_folders(path());
  write_text(path() / run_name(earlier.empty() ? 1 : earlier.back() + 1), sealed(state, kRunKind));
  int kept = 1;
  for (auto generation = earlier.rbegin(); generation != earlier.rend(); ++generation) {
    const fs::path file = path() / run_name(*generation);
    if (kept < kGenerations && is_run_of(file, run_id))
      ++kept;
    else
      remove_quietly(file);
  }
}

void CheckpointFolder::read_newest_run(const std::function<void(const FieldReader&)>& read,
                                       std::vector<std::string>& warnings) const {
  const auto generations = numbers_in(path(), run_generation);
  std::vector<std::string> faults;
  for (auto generation = generations.rbegin(); generation != generations.rend(); ++generation) {
    const std::string name = run_name(*generation);
    try {
      read(open_sealed(path() / name, kRunKind));
      for (const auto& fault : faults) warnings.push_back("checkpoint " + fault + "; going on from " + name);
      return;
    } catch (const InputError& error) {
      faults.emplace_back(error.what());
    }
  }
  if (faults.empty()) return;
  throw InputError("the checkpoint folder " + named(path()) + " holds no whole state of a run: " + faults.front());
}

std::vector<ProbeManifest> CheckpointFolder::manifests(std::int64_t probe, const std::string& run_id) const {
  const fs::path folder = impl_->probe_folder(probe);
  const auto steps = numbers_in(folder, manifest_steps);
  std::vector<ProbeManifest> whole;
  for (auto at = steps.rbegin(); at != steps.rend(); ++at) {
    auto manifest = manifest_of(folder / manifest_name(*at), probe, run_id);
    if (manifest && has_all_pieces(folder, *manifest)) whole.push_back(std::move(*manifest));
  }
  return whole;
}

std::vector<std::int64_t> CheckpointFolder::probes(const std::string& run_id) const {
  std::vector<std::int64_t> all;
  for (const std::int64_t probe : impl_->probes()) {
    const fs::path folder = impl_->probe_folder(probe);
    const auto steps = numbers_in(folder, manifest_steps);
    if (std::any_of(steps.begin(), steps.end(), [&](std::int64_t at) {
          return manifest_of(folder / manifest_name(at), probe, run_id).has_value();
        }))
      all.push_back(probe);
  }
  return all;
}

void CheckpointFolder::remove_probe(std::int64_t probe) { remove_probe_folder(impl_->probe_folder(probe)); }

void CheckpointFolder::clear() {
  std::optional<std::string> failure;
  const auto names = names_in(path());
  // Run states first: probes without one are left-overs, which the next lock() removes should this process die here.
  for (const auto& name : names)
    if ((run_generation(name) || is_temporary(name)) && ::unlink((path() / name).c_str()) != 0 && !failure)
      failure = "cannot remove " + named(path() / name) + ": " + std::strerror(errno);
  for (const std::int64_t probe : impl_->probes()) {
    const auto failed = remove_probe_folder(impl_->probe_folder(probe));
    if (failed && !failure) failure = failed;
  }
  if (failure) throw InputError(*failure);
}

void CheckpointFolder::remove() {
  clear();
  remove_quietly(path() / kLock);
  impl_->lock.reset();
  ::rmdir(path().c_str());  // stays where something else is in it
}

Piece CheckpointFolder::write_piece(std::int64_t probe, const std::string& set, std::int64_t first_row,
                                    std::span<const std::span<const std::byte>> rows, int rank, int ranks) {
  make_folders(impl_->probe_folder(probe));
  return checkpoint::write_piece(impl_->probe_folder(probe), set, first_row, rows, rank, ranks);
}

void CheckpointFolder::commit(const ProbeManifest& manifest) {
  const fs::path folder = impl_->probe_folder(manifest.probe);
  if (const std::string wrong = inconsistency(manifest); !wrong.empty())
    throw Error(ExitCode::kInternal, "a probe's checkpoint contradicts itself: " + wrong);
  for (const Piece& piece : manifest.pieces)
    if (const std::string why = fault(folder, piece); !why.empty())
      throw InputError("checkpoint piece " + named(folder / piece.file) + " of rank " + std::to_string(piece.rank) +
                       " is not visible to this rank (" + why +
                       "): the folder must lie on a file system that all hosts share; give one with --checkpoint");
  make_folders(folder);
  write_text(folder / manifest_name(manifest.steps), sealed(manifest));

  std::set<std::string> named_pieces;
  const auto keep = [&](const ProbeManifest& kept) {
    for (const Piece& piece : kept.pieces) named_pieces.insert(piece.file);
  };
  keep(manifest);
  // A manifest with more steps is one that could not be used, or this run would have gone on from it.
  const auto steps = numbers_in(folder, manifest_steps);
  int kept = 1;
  for (auto at = steps.rbegin(); at != steps.rend(); ++at) {
    if (*at == manifest.steps) continue;
    const fs::path file = folder / manifest_name(*at);
    const auto earlier =
        *at < manifest.steps && kept < kGenerations ? manifest_of(file, manifest.probe, manifest.run_id) : std::nullopt;
    if (earlier && has_all_pieces(folder, *earlier)) {
      keep(*earlier);
      ++kept;
    } else {
      remove_quietly(file);
    }
  }
  sync_folder(folder);  // no manifest comes back, after a power cut, whose pieces are gone
  for (const auto& name : names_in(folder))
    if (is_piece(name) && !named_pieces.contains(name)) remove_quietly(folder / name);
}

std::vector<std::byte> CheckpointFolder::read_rows(const ProbeManifest& manifest, const std::string& set,
                                                   std::int64_t first_row, std::int64_t rows, std::int64_t begin,
                                                   std::int64_t end) const {
  return checkpoint::read_rows(impl_->probe_folder(manifest.probe), manifest, set, first_row, rows, begin, end,
                               impl_->verified);
}

}  // namespace hesspect
