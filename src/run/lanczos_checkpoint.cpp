#include "hesspect/run/lanczos_checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

constexpr std::int64_t kCopiedAtOnceBytes = std::int64_t{1} << 30;

std::span<const std::byte> bytes_of(const at::Tensor& row) {
  return {static_cast<const std::byte*>(row.const_data_ptr()), static_cast<std::size_t>(row.nbytes())};
}

/// What rows of this size hold.
at::ScalarType dtype_of(std::int64_t element_bytes) {
  return element_bytes == 8 ? at::kDouble : element_bytes == 2 ? at::kBFloat16 : at::kFloat;
}

/// This rank's shard of one stored row, on the CPU.
at::Tensor read_row(const CheckpointFolder& folder, const ProbeManifest& manifest, const std::string& set,
                    std::int64_t row, const Shard& shard, at::ScalarType dtype) {
  at::Tensor tensor = at::zeros({shard.chunk}, at::TensorOptions().dtype(dtype));
  auto* out = static_cast<std::byte*>(tensor.mutable_data_ptr());
  const auto element = static_cast<std::int64_t>(tensor.element_size());
  shard.for_each_piece([&](std::int64_t position, std::int64_t begin, std::int64_t size) {
    const std::vector<std::byte> bytes = folder.read_rows(manifest, set, row, 1, begin, begin + size);
    if (static_cast<std::int64_t>(bytes.size()) != size * element)
      throw InputError("the checkpoint of probe " + std::to_string(manifest.probe) + " holds vectors of another dtype");
    std::memcpy(out + position * element, bytes.data(), bytes.size());
  });
  return tensor;
}

}  // namespace

LanczosCheckpoint::LanczosCheckpoint(CheckpointFolder& folder, std::string run_id, Communicator& group)
    : folder_(folder), run_id_(std::move(run_id)), group_(group) {}

std::vector<Piece> LanczosCheckpoint::write_rows(std::int64_t probe, const std::string& set, std::int64_t first,
                                                 std::span<const at::Tensor> rows) {
  std::vector<Piece> pieces;
  while (!rows.empty()) {
    // Rows of a GPU pass through host memory, which the plan has not given them: a piece at a time.
    const auto row_bytes = static_cast<std::int64_t>(std::max<std::size_t>(1, rows.front().nbytes()));
    const auto all = static_cast<std::int64_t>(rows.size());
    const std::int64_t count =
        rows.front().is_cpu() ? all : std::clamp<std::int64_t>(kCopiedAtOnceBytes / row_bytes, 1, all);
    const Piece mine = agreed(group_, [&] {
      std::vector<at::Tensor> on_host;
      std::vector<std::span<const std::byte>> spans;
      for (const at::Tensor& row : rows.first(static_cast<std::size_t>(count))) {
        on_host.push_back(row.cpu());  // itself, where it is there already
        spans.push_back(bytes_of(on_host.back()));
      }
      return folder_.write_piece(probe, set, first, spans, group_.rank(), group_.size());
    });
    for (const std::string& text : group_.all_gather_bytes(to_text(mine))) pieces.push_back(piece_from(text));
    rows = rows.subspan(static_cast<std::size_t>(count));
    first += count;
  }
  return pieces;
}

void LanczosCheckpoint::save(std::int64_t probe, const Lanczos& run, const Shard& shard) {
  const LanczosRecord record = run.record();
  ProbeManifest manifest;
  manifest.run_id = run_id_;
  manifest.probe = probe;
  manifest.steps = record.t.steps();
  manifest.state = to_bytes(record);
  manifest.n = record.t.n;
  manifest.ranks = group_.size();
  if (shard.cut) manifest.cut = shard.cut->numbers();

  // A row with its number never changes: what the last generation holds of those that are left is not written again.
  std::int64_t first = record.first_row;
  const auto last = saved_.find(probe);
  if (last != saved_.end() && last->second.state == manifest.state) return;
  if (record.full && last != saved_.end()) {
    for (const Piece& piece : last->second.pieces) {
      if (piece.set != "basis" || piece.first_row + piece.rows <= record.first_row) continue;
      manifest.pieces.push_back(piece);
      first = std::max(first, piece.first_row + piece.rows);
    }
  }
  const StoredVectors stored = run.stored();
  std::vector<at::Tensor> rows, running;
  for (std::int64_t row = first; row < record.first_row + record.rows; ++row) rows.push_back(stored.basis(row));
  for (std::int64_t i = 0; i < record.running; ++i) running.push_back(stored.running(i));
  const auto element = [](const std::vector<at::Tensor>& tensors, std::int64_t otherwise) {
    return tensors.empty() ? otherwise : static_cast<std::int64_t>(tensors.front().element_size());
  };
  manifest.basis_element_bytes = element(rows, last != saved_.end() ? last->second.basis_element_bytes : 4);
  manifest.running_element_bytes = element(running, 4);
  for (const auto& pieces : {write_rows(probe, "basis", first, rows), write_rows(probe, "running", 0, running)})
    manifest.pieces.insert(manifest.pieces.end(), pieces.begin(), pieces.end());
  agree(group_, [&] {
    if (group_.rank() == 0) folder_.commit(manifest);
  });
  saved_[probe] = std::move(manifest);
}

std::unique_ptr<Lanczos> LanczosCheckpoint::resume(LinearOperator& op, std::int64_t probe,
                                                   const LanczosOptions& options,
                                                   const std::function<void(const std::string&)>& warn) {
  const std::vector<ProbeManifest> manifests = agreed(group_, [&] { return folder_.manifests(probe, run_id_); });
  // What the first rank sees counts: a shared file system may show the others a little less, or more.
  std::string listed;
  for (const ProbeManifest& manifest : manifests) listed += std::to_string(manifest.steps) + ' ';
  std::istringstream generations(group_.broadcast_bytes(listed));
  const at::ScalarType vectors = c10::typeMetaToScalarType(op.options().dtype());
  for (std::int64_t steps = 0; generations >> steps;) {
    try {
      LanczosRecord record;
      const ProbeManifest manifest = agreed(group_, [&] {
        for (const ProbeManifest& one : manifests)
          if (one.steps == steps) {
            record = lanczos_record_from(one.state);
            return one;
          }
        throw InputError("the checkpoint of probe " + std::to_string(probe) + " at step " + std::to_string(steps) +
                         " cannot be seen from rank " + std::to_string(group_.rank()) +
                         " of its group: the folder must be on a file system that all hosts share");
      });
      const StoredVectors stored{
          [&](std::int64_t row) {
            return read_row(folder_, manifest, "basis", row, op.shard(), dtype_of(manifest.basis_element_bytes));
          },
          [&](std::int64_t i) { return read_row(folder_, manifest, "running", i, op.shard(), vectors); }};
      auto run = std::make_unique<Lanczos>(Lanczos::resumed(op, record, stored, options));
      const std::vector<std::int64_t> cut = op.shard().cut ? op.shard().cut->numbers() : std::vector<std::int64_t>();
      if (manifest.ranks == group_.size() && manifest.cut == cut) saved_[probe] = manifest;
      return run;
    } catch (const InputError& error) {  // agreed: the same on all ranks
      if (group_.rank() == 0)
        warn("step " + std::to_string(steps) + " of probe " + std::to_string(probe) +
             " cannot be used: " + error.what());
    }
  }
  return nullptr;
}

}  // namespace hesspect
