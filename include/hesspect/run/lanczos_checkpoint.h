// A group's Lanczos runs in the checkpoint's folder, and back.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "hesspect/comm/communicator.h"
#include "hesspect/io/checkpoint.h"
#include "hesspect/krylov/lanczos.h"

namespace hesspect {

class LanczosCheckpoint {
 public:
  /// @param run_id  whose checkpoints count
  LanczosCheckpoint(CheckpointFolder& folder, std::string run_id, Communicator& group);

  /// Writes a generation of a probe's run: the rows since the last one (after a thick restart, all), and the scalars;
  /// nothing where the run is as the last one has it. Also of a run whose probe has been reported as finished, as long
  /// as it is wanted: until forget(), and for the dealer until CheckpointFolder::remove_probe. Collective over the
  /// group.
  /// @throws InputError (agreed) where it cannot be written; the last generation is as it was
  /// @param shard  how the run's vectors are cut
  void save(std::int64_t probe, const Lanczos& run, const Shard& shard);
  /// The newest generation of a probe that can be read, as a run that goes on from it. Collective over op.comm().
  /// @return none where there is no such generation
  /// @param warn  called on the group's first rank, for each generation that is passed over
  std::unique_ptr<Lanczos> resume(LinearOperator& op, std::int64_t probe, const LanczosOptions& options,
                                  const std::function<void(const std::string&)>& warn);
  /// The probe is finished, nothing more of it will be saved.
  void forget(std::int64_t probe) { saved_.erase(probe); }

 private:
  std::vector<Piece> write_rows(std::int64_t probe, const std::string& set, std::int64_t first,
                                std::span<const at::Tensor> rows);

  CheckpointFolder& folder_;
  std::string run_id_;
  Communicator& group_;
  std::map<std::int64_t, ProbeManifest> saved_;  // the last generation, cut for this group's ranks
};

}  // namespace hesspect
