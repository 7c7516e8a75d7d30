// A Lanczos run written down, and taken again.
//
// A resumed run starts over at step 0 and takes its recorded steps again without products, giving bitwise the same T,
// before it goes on with its own: so whatever algorithm drove the run drives it again, makes the same decisions, and
// needs no state of its own. What T was at any step, it is again.
//
//   const std::string bytes = to_bytes(run.record());  // beside the vectors of run.stored()
//   Lanczos again = Lanczos::resumed(op, lanczos_record_from(bytes), stored);
//   again.extend(op, 60);  // the steps that `run` had taken cost no product
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "hesspect/krylov/tridiagonal.h"

namespace hesspect {

/// The scalars of a run, equal on all ranks: with the stored vectors, all that is needed to go on exactly.
struct LanczosRecord {
  Tridiagonal t;
  bool full = true;  // re-orthogonalisation
  double breakdown_tolerance = 0;
  /// Which rows are stored: [first_row, first_row + rows), numbered as Tridiagonal::first_row says. Without
  /// re-orthogonalisation the last ones alone.
  std::int64_t first_row = 0, rows = 0;
  /// Vectors kept at full precision besides, where rows are stored narrower: 0, or the last one or two.
  std::int64_t running = 0;
};
/// A record as bytes and back, to the bit. @throws InputError for bytes that are no such record
std::string to_bytes(const LanczosRecord& record);
LanczosRecord lanczos_record_from(const std::string& bytes);
/// What is wrong with a record in itself; empty where nothing is.
std::string flaw_of(const LanczosRecord& record);

/// The vectors of a record: this rank's shard of row i (numbered as there) of each set, [chunk], of the set's dtype.
/// Not collective.
struct StoredVectors {
  std::function<at::Tensor(std::int64_t row)> basis;
  std::function<at::Tensor(std::int64_t i)> running;
};

/// Gives a T that starts empty what the recorded one got, in order. Where it is follows from T itself. Of a run that is
/// not resumed the record is empty, and the replay over from the start.
class Replay {
 public:
  Replay() = default;
  explicit Replay(Tridiagonal recorded) : recorded_(std::move(recorded)) {}

  const Tridiagonal& recorded() const { return recorded_; }
  /// Recorded steps that are still to be taken again.
  std::int64_t steps_left(const Tridiagonal& t) const;
  /// Nothing of the record is still to come: neither steps nor a block that has only begun.
  bool over(const Tridiagonal& t) const;
  /// The rows that belong to T are those that the record stores: no recorded thick restart is still to come.
  bool has_rows(const Tridiagonal& t) const { return t.thick_restarts.size() >= recorded_.thick_restarts.size(); }

  /// Takes a thick restart, where the record has one here, or a step.
  void take_next(Tridiagonal& t) const;
  /// After a breakdown: begins the record's next block. @return false where it has none
  bool begin_block(Tridiagonal& t) const;
  /// Takes the recorded thick restart at this step. @return false where it has none
  bool restart_thick(Tridiagonal& t) const;

 private:
  Tridiagonal recorded_;
};

}  // namespace hesspect
